"""Which Python has k2."""

import sys
from pathlib import Path

import pytest

from asrcompress.cli import main
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
    monkeypatch.setenv("K2_PYTHON", "/some/python")
    assert interpreter.of_k2() == "/some/python"


def test_it_finds_this_asrcompress_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                   capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    python = tmp_path / "python"  # -S: nothing is installed
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S -c "import asrcompress; print(asrcompress.__file__)"\n')
    python.chmod(0o755)
    assert interpreter.run(str(python), ["graph"]) == 0
    assert Path(capfd.readouterr().out.strip()).parent == interpreter.PACKAGE
    assert interpreter.run(str(python), ["graph"], silent=True) == 0 and not capfd.readouterr().out


def test_a_command_says_that_its_python_is_no_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(interpreter, "here", lambda: False)
    monkeypatch.setenv("K2_PYTHON", str(tmp_path / "none"))
    assert main(["graph", "--lang", "lang", "--arpa", "lm.arpa", "--out", str(tmp_path / "graph")]) == 1
    assert "none cannot be started (No such file or directory); check K2_PYTHON" in capsys.readouterr().err


def test_a_python_without_k2_does_not_start_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                                   capfd: pytest.CaptureFixture[str]) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho ${interpreter.STARTED}\n")
    python.chmod(0o755)
    monkeypatch.setattr(interpreter, "here", lambda: False)
    monkeypatch.setenv("K2_PYTHON", str(python))
    command = ["graph", "--lang", "lang", "--arpa", "lm.arpa", "--out", str(tmp_path / "graph")]
    assert main(command) == 0
    started = capfd.readouterr().out.strip()
    assert started == str(python)
    monkeypatch.setenv(interpreter.STARTED, started)  # as the process that it started finds it
    assert main(command) == 1
    assert "has no k2, which graphs and searches need; run setup.sh" in capfd.readouterr().err
