"""Commands that a recipe runs, here and in processes of their own."""

from pathlib import Path

import pytest

from asrcompress.errors import UserError
from asrcompress.recipe import commands


def interpreter(folder: Path, script: str) -> str:
    """A program that stands in for an interpreter."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_words_arrive_as_they_are(tmp_path: Path) -> None:
    python = interpreter(tmp_path, f'for word; do echo "$word"; done > {tmp_path}/words')
    commands.start(python, "search", "--archive", Path("it's a,b/run(2) lr=2e-3.post"), 1.5)
    assert (tmp_path / "words").read_text().splitlines() == [
        "-m", "asrcompress.cli", "search", "--archive", "it's a,b/run(2) lr=2e-3.post", "1.5"]


@pytest.mark.parametrize(("script", "said"), [
    ("kill -ABRT $$", "asrcompress graph was ended by signal 6 while it worked on --arpa lm.arpa"),
    ("exit 1", "asrcompress graph failed")])
def test_a_process_that_fails_is_a_sentence(tmp_path: Path, script: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        commands.start(interpreter(tmp_path, script), "graph", "--arpa", "lm.arpa")


def test_an_interpreter_that_is_not_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2_PYTHON", str(tmp_path / "none"))
    with pytest.raises(UserError, match="none cannot be started .* check K2_PYTHON"):
        commands.in_k2("search")


def test_a_command_in_this_process_raises_its_own_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        commands.here("report", "--rows", tmp_path / "it's, none")
