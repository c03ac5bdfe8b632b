"""Which Python has k2, and commands in it: k2's wheels are tied to one version of torch, so it may have an environment
of its own.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import asrcompress
from asrcompress.errors import UserError
from asrcompress.processes import die_with_parent

PACKAGE = Path(asrcompress.__file__).resolve().parent
STARTED = "ASRCOMPRESS_STARTED"  # in the environment of what `run` starts: by which interpreter


def here() -> bool:
    """Whether this interpreter has k2."""
    return find_spec("k2") is not None


def of_k2() -> str:
    """The interpreter that K2_PYTHON names, or this one where it has k2, or that of setup.sh's .venv-k2.

    Errors: UserError where there is none of them, or it is this one and has no k2: it would start itself for ever.
    """
    beside = PACKAGE.parent / ".venv-k2" / "bin" / "python"
    python = os.environ.get("K2_PYTHON") or (sys.executable if here() else str(beside) if beside.exists() else "")
    if not python or (python == os.environ.get(STARTED) and not here()):
        raise UserError(f"{sys.executable} has no k2, which graphs and searches need; run setup.sh, or let K2_PYTHON "
                        "name a Python that has it")
    return python


def run(python: str, arguments: Sequence[str], silent: bool = False) -> int:
    """Run a command of asrcompress, this one, installed there or not, in a process of its own, which does not outlive
    this one; its exit status.

    `silent`: what it prints is dropped. Errors: UserError where the interpreter cannot be started.
    """
    paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        return subprocess.run([python, "-m", "asrcompress.cli", *arguments],
                              stdout=subprocess.DEVNULL if silent else None,
                              env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), STARTED: python},
                              preexec_fn=die_with_parent).returncode
    except OSError as error:
        raise UserError(f"{python} cannot be started ({error.strerror}); check K2_PYTHON, or run setup.sh") from None
