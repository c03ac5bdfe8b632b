"""Where the jobs of a sweep run: `local`, `ray` or `slurm`, one file each.

A launcher starts commands and says how they ended; it knows nothing of models. What a command needs lies in files, and
so does what it makes: every machine has to see the recipe's folder and the Python environments under the same paths.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

from asrcompress import registry
from asrcompress.errors import UserError
from asrcompress.options import make
from asrcompress.recipe.launchers.base import Launcher


def build(name: str, words: Sequence[str], jobs: int, folder: Path) -> Launcher:
    """A launcher by name with its options, as "cpus=4 address=auto", for `jobs` at a time.

    `folder` is for what the launcher writes of its own. Errors: UserError for an unknown name or option, and where its
    engine is not installed or cannot be reached.
    """
    module = registry.module(__name__, name, "is no launcher")
    for word in words:
        if "=" not in word:
            raise UserError(f"--launcher-options {word}: write {word}=VALUE")
    hints = get_type_hints(module.Options)
    given = {key: _plain(value, hints.get(key)) for key, value in (word.split("=", 1) for word in words)}
    return module.launcher(make(module.Options, given, f"launcher {name}"), jobs, folder)


def _plain(text: str, hint: Any) -> Any:
    """A whole number where the text is one and the option takes it: an account may have digits only."""
    return int(text) if text.isdecimal() and int in (hint, *get_args(hint)) else text
