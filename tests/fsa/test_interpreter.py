"""Which Python has k2."""

import subprocess
import sys
from pathlib import Path

import pytest

from asrcompress.errors import UserError
from asrcompress.fsa import interpreter


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone in which nothing is set up, seen from a Python without k2."""
    monkeypatch.delenv("K2_PYTHON", raising=False)
    monkeypatch.setattr(interpreter, "here", lambda: False)
    monkeypatch.setattr(interpreter, "PACKAGE", tmp_path / "asrcompress")
    return tmp_path


def test_the_one_that_is_named_then_this_one_then_that_of_the_setup(clone: Path, monkeypatch: pytest.MonkeyPatch,
                                                                    ) -> None:
    with pytest.raises(UserError, match=r"has no k2.*run setup\.sh, or let K2_PYTHON name"):
        interpreter.of_k2()
    python = clone / ".venv-k2" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert interpreter.of_k2() == str(python)
    monkeypatch.setattr(interpreter, "here", lambda: True)
    assert interpreter.of_k2() == sys.executable
    monkeypatch.setenv("K2_PYTHON", "/bin/sh")
    assert interpreter.of_k2() == "/bin/sh"
    monkeypatch.setenv("K2_PYTHON", str(clone / "none"))
    with pytest.raises(UserError, match="none cannot be started; check K2_PYTHON"):
        interpreter.of_k2()


def test_it_finds_this_asrcompress_from_any_folder(tmp_path: Path) -> None:
    words = [sys.executable, "-S", "-c", "import asrcompress; print(asrcompress.__file__)"]  # -S: nothing is installed
    said = subprocess.check_output(words, cwd=tmp_path, env=interpreter.environment(), text=True)
    assert Path(said.strip()).parent == interpreter.PACKAGE
