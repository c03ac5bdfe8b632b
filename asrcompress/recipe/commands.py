"""Commands of asrcompress, run from a recipe. Every argument is a word of its own, so a path may hold any character."""

import argparse
import importlib
from typing import Any

from asrcompress import cli
from asrcompress.errors import UserError
from asrcompress.fsa import interpreter


def here(command: str, *words: Any) -> None:
    """Run a command in this process. Errors: the UserError that the command raises."""
    module = importlib.import_module(f"asrcompress.cli.{command}")
    parser = argparse.ArgumentParser(prog=f"asrcompress {command}")
    module.add_arguments(parser)
    module.run(cli.parse(parser, [str(word) for word in words]))


def in_k2(command: str, *words: Any, silent: bool = False) -> None:
    """Run a command with a Python that has k2; `silent`: what it prints is dropped.

    Errors: UserError where there is none, and where the command fails. What it says of itself goes to standard error,
    as always.
    """
    start(interpreter.of_k2(), command, *words, silent=silent)


def start(python: str, command: str, *words: Any, silent: bool = False) -> None:
    """Run a command in a process of its own. Errors: UserError with how it ended and what it was run on."""
    arguments = [str(word) for word in words]
    code = interpreter.run(python, [command, *arguments], silent)
    if code < 0:
        raise UserError(f"asrcompress {command} was ended by signal {-code} while it worked on {' '.join(arguments)}; "
                        "check these files and the free memory")
    if code:
        raise UserError(f"asrcompress {command} failed (see above)")
