"""Commands that a recipe runs, here and in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from asrcompress.errors import UserError
from asrcompress.fsa import interpreter as k2
from asrcompress.lang import ngram
from asrcompress.recipe import commands
from tests.conftest import REPO


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


@pytest.mark.skipif(not (k2.here() or (REPO / ".venv-k2").exists()), reason="k2 is where K2_PYTHON says, or nowhere")
def test_a_command_that_needs_k2_finds_it_from_any_python_and_folder(tmp_path: Path) -> None:
    (tmp_path / "lexicon").write_text("YES Y EH S\nNO N OW\n")
    (tmp_path / "text").write_text("u1 YES NO\n")
    commands.here("lang", "--lexicon", tmp_path / "lexicon", "--text", tmp_path / "text", "--out", tmp_path / "lang")
    ngram.write(tmp_path / "lm.arpa", [["-0.5\t</s>\n", "-99\t<s>\n", "-0.5\tYES\n", "-0.5\tNO\n"]])
    environment = {name: value for name, value in os.environ.items() if name not in ("K2_PYTHON", "PYTHONPATH")}

    def graph(out: str) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).parent / "asrcompress"
        return subprocess.run([program, "graph", "--lang", "lang", "--arpa", "lm.arpa", "--out", out], cwd=tmp_path,
                              env=environment, capture_output=True, text=True)

    assert graph("graph").returncode == 0 and (tmp_path / "graph" / "HLG.npz").exists()
    (tmp_path / "lm.arpa").write_text("")
    failed = graph("other")
    assert failed.returncode == 1 and failed.stderr.count("\n") == 1 and "lm.arpa" in failed.stderr
