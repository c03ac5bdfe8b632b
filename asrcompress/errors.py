"""The one error type that a user sees."""


class UserError(Exception):
    """Bad input, said in one sentence: what is wrong, where, and what to do about it.

    The command line prints the sentence alone and exits with 1; anything else that is raised is a bug and
    keeps its traceback.
    """
