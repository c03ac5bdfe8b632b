"""Which Python has k2: its wheels are tied to one version of torch, so it may have an environment of its own."""

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import asrcompress
from asrcompress.errors import UserError

PACKAGE = Path(asrcompress.__file__).resolve().parent


def here() -> bool:
    """Whether this interpreter has k2."""
    return find_spec("k2") is not None


def of_k2() -> str:
    """The interpreter that K2_PYTHON names, or this one where it has k2, or that of setup.sh's .venv-k2.

    Errors: UserError where there is none of them, and where the one that is named is no program.
    """
    if told := os.environ.get("K2_PYTHON"):
        if shutil.which(told) is None:
            raise UserError(f"{told} cannot be started; check K2_PYTHON, or run setup.sh")
        return told
    if here():
        return sys.executable
    beside = PACKAGE.parent / ".venv-k2" / "bin" / "python"
    if beside.exists():
        return str(beside)
    raise UserError(f"{sys.executable} has no k2, which graphs and searches need; run setup.sh, or let K2_PYTHON name "
                    "a Python that has it")


def environment() -> dict[str, str]:
    """The variables of a process of it, in which asrcompress is this one, installed there or not."""
    paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
