import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from asrcompress import __version__, cli
from tests.conftest import REPO


def test_help_lists_every_command_with_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for path in (REPO / "asrcompress" / "cli").glob("[!_]*.py"):
        assert path.stem.replace("_", "-") in text


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for path in (REPO / "asrcompress" / "cli").glob("[!_]*.py"):
        with pytest.raises(SystemExit) as end:
            cli.main([path.stem.replace("_", "-"), "--help"])
        assert end.value.code == 0, path.stem
    assert "usage" in capsys.readouterr().out


def test_bad_input_is_one_sentence_and_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["synthesize", "--out", str(tmp_path), "--grammar", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err == f"asrcompress synthesize: the grammar {tmp_path / 'none'} does not exist\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [
    ["--model", "m", "a=1", "--out", "o", "+b.c=2"], ["a=1", "--model", "m", "--out", "o", "+b.c=2"],
    ["a=1", "+b.c=2", "--out", "o", "--model", "m"], ["--out", "o", "--model", "m", "a=1", "+b.c=2"]])
def test_overrides_may_stand_between_options(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from asrcompress.cli import compress

    seen: list[argparse.Namespace] = []
    monkeypatch.setattr(compress, "run", seen.append)
    assert cli.main(["compress", *words]) == 0
    assert (seen[0].model, seen[0].out, seen[0].overrides) == ("m", "o", ["a=1", "+b.c=2"])


@pytest.mark.parametrize("words", [["compress", "--model", "m", "--out", "o", "a=1", "--moon", "b=2"],
                                   ["packed", "info", "file", "a=1"]])
def test_what_no_command_knows_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 2 and "unrecognized arguments: " in capsys.readouterr().err


def test_version() -> None:
    command = [sys.executable, "-m", "asrcompress.cli", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPO).stdout.strip() == __version__


def test_nothing_heavy_is_imported_before_a_command_runs() -> None:
    program = "import sys, asrcompress.cli as cli\ntry: cli.main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    output = subprocess.check_output([sys.executable, "-c", program], text=True, cwd=REPO)
    loaded = set(output.splitlines()[-1].split())
    assert "asrcompress.cli.synthesize" in loaded
    assert not loaded & {"torch", "numpy", "lhotse", "k2", "lightning", "matplotlib"}
