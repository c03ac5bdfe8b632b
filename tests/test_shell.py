"""The shell that the recipes share, run with bash."""

import argparse
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from asrcompress.cli import recipe
from asrcompress.recipe import settings
from tests.conftest import REPO

SCRIPT = """
set -euo pipefail
help_message="usage: script [--stage N]"
stage=0 stop_stage=100 mini=true train_sets= corpus=data
. {repo}/local/parse_options.sh
echo "$stage|$stop_stage|$mini|$train_sets|$corpus|$*"
"""


def options(*arguments: str) -> subprocess.CompletedProcess:
    command = ["bash", "-c", SCRIPT.format(repo=REPO), "script", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "0|100|true||data|"),
        (["--stage", "3", "--stop-stage", "4"], "3|4|true||data|"),
        (["--stop_stage", "4"], "0|4|true||data|"),
        (["--mini", "false", "rest", "--stage", "2"], "0|100|false||data|rest --stage 2"),
        (["--train-sets", "a b $HOME 'c'", "--corpus", ""], "0|100|true|a b $HOME 'c'||"),
        (["--stage", "1", "--stage", "-1"], "-1|100|true||data|"),
        (["--mini", "false", "--mini", "--stage", "3"], "3|100|true||data|"),
        (["--mini"], "0|100|true||data|"),
    ],
)
def test_options(arguments: list[str], expected: str) -> None:
    result = options(*arguments)
    assert (result.returncode, result.stdout, result.stderr) == (0, expected + "\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stages", "3"], "unknown option --stages"),
        (["--PATH", "3"], "unknown option --PATH"),
        (["--stage[0]", "3"], "unknown option"),
        (["--stage"], "--stage needs a value"),
        (["--stage", "--mini", "true"], "--stage needs a value"),
        (["--mini", "yes"], "--mini is true or false, not 'yes'"),
        (["--stage=3"], "write '--stage 3'"),
        (["--config", "/nowhere/at/all"], "there is no file '/nowhere/at/all'"),
        (["--config"], "there is no file"),
        (["--stage", "six"], "--stage is the number of a stage, not 'six'"),
        (["--stop-stage", ""], "--stop-stage is the number of a stage, not ''"),
    ],
)
def test_bad_options(arguments: list[str], message: str) -> None:
    result = options(*arguments)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("script: ") and message in result.stderr and result.stderr.count("\n") == 1


def test_help() -> None:
    result = options("--stage", "3", "--help")
    assert (result.returncode, result.stdout) == (0, "usage: script [--stage N]\n")


def test_command_line_wins_over_config(tmp_path: Path) -> None:
    config = tmp_path / "settings.sh"
    config.write_text("stage=7\ncorpus=elsewhere\n")
    assert options("--stage", "2", "--config", str(config)).stdout == "2|100|true||elsewhere|\n"


STUB = """#!/bin/sh
cd "$(dirname "$0")"
echo "12 failed lines of chatter"
cat tail
exit $(cat code)
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone whose two interpreters are stubs that print what pytest would."""
    shutil.copytree(REPO / "local", tmp_path / "local")
    for environment in (".venv", ".venv-k2"):
        python = tmp_path / environment / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(STUB)
        python.chmod(0o755)
        (tmp_path / environment / ".stamp").touch()
    return tmp_path


def run_tests(clone: Path, main: tuple[str, int], k2: tuple[str, int]) -> subprocess.CompletedProcess:
    for environment, (tail, code) in ((".venv", main), (".venv-k2", k2)):
        (clone / environment / "bin" / "tail").write_text(tail + "\n")
        (clone / environment / "bin" / "code").write_text(str(code))
    environment = {name: value for name, value in os.environ.items() if name != "K2_PYTHON"}
    return subprocess.run([clone / "local" / "test.sh"], capture_output=True, text=True, env=environment)


def test_test_summary_adds_both_runs(clone: Path) -> None:
    result = run_tests(clone, ("30 passed, 2 skipped, 1 warning in 3.10s", 0), ("4 passed, 1 skipped in 0.52s", 0))
    assert result.returncode == 0
    assert result.stdout.splitlines()[-1] == "34 passed, 0 failed, 3 skipped"


@pytest.mark.parametrize(
    ("main", "k2", "summary"),
    [
        (("3 passed in 1s", 0), ("1 failed, 4 passed in 1s", 1), "7 passed, 1 failed, 0 skipped"),
        (("2 failed, 3 passed, 1 error in 1s", 1), ("4 passed in 1s", 0), "7 passed, 3 failed, 0 skipped"),
        (("3 passed in 1s", 0), ("7 skipped in 1s", 5), "3 passed, 0 failed, 7 skipped"),
    ],
)
def test_one_failing_run_fails(clone: Path, main: tuple[str, int], k2: tuple[str, int], summary: str) -> None:
    result = run_tests(clone, main, k2)
    assert result.returncode != 0
    assert result.stdout.splitlines()[-1] == summary


PATHS = 'cd / && . "$0/local/path.sh" && echo "$PYTHON|$K2_PYTHON"'


def paths(clone: Path, **environment: str) -> subprocess.CompletedProcess:
    inherited = {name: value for name, value in os.environ.items() if name != "K2_PYTHON"} | environment
    return subprocess.run(["bash", "-c", PATHS, str(clone)], capture_output=True, text=True, env=inherited)


def test_paths_are_absolute(clone: Path) -> None:
    main, k2 = f"{clone}/.venv/bin/python", f"{clone}/.venv-k2/bin/python"
    assert paths(clone).stdout == f"{main}|{k2}\n"
    assert paths(clone, K2_PYTHON="/opt/k2/python").stdout == f"{main}|/opt/k2/python\n"
    shutil.rmtree(clone / ".venv-k2")
    assert paths(clone).stdout == f"{main}|{main}\n"


def test_paths_before_setup(tmp_path: Path) -> None:
    shutil.copytree(REPO / "local", tmp_path / "local")
    result = paths(tmp_path)
    assert result.returncode == 1
    assert "setup.sh" in result.stderr and result.stderr.count("\n") == 1


def test_setup_without_python_3_11(tmp_path: Path) -> None:
    shutil.copy(REPO / "setup.sh", tmp_path)
    shutil.copytree(REPO / "requirements", tmp_path / "requirements")
    shutil.copy(REPO / "pyproject.toml", tmp_path)
    environment = os.environ | {"PYTHON_BASE": "/nowhere/python"}
    result = subprocess.run([tmp_path / "setup.sh"], capture_output=True, text=True, env=environment)
    assert result.returncode == 1
    assert "Python 3.11 is needed" in result.stderr and result.stderr.count("\n") == 1


def help_of(recipe: str, *arguments: str) -> str:
    command = [REPO / "recipes" / recipe / "run.sh", *arguments, "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("recipe", ["librispeech", "quickstart"])
def test_a_recipe_names_its_stages_and_every_option(recipe: str) -> None:
    said = help_of(recipe)
    stages = " ".join(said.partition("stages: ")[2].split())
    assert stages.endswith("7 decoding, 8 device files, 9 decoding in sherpa-onnx, 10 report")
    for name in re.findall(r"^([a-z_]+)=", (REPO / "local" / "options.sh").read_text(), re.MULTILINE):
        assert f"  --{name.replace('_', '-')} " in said


def test_help_shows_what_the_recipe_has_otherwise() -> None:
    assert "--model tdnn_quick " in help_of("quickstart") and "--model tdnn " in help_of("librispeech")
    assert '--sizes "0.5 0.25 0.1" ' in help_of("quickstart")


STAGES = """
set -euo pipefail
recipe={recipe}
. {repo}/local/options.sh
epochs=3
get_corpus() {{ echo get_corpus; }}
PYTHON={recipe}/python
. {repo}/local/run_stages.sh
"""


def stub(clone: Path) -> None:
    """Give a clone an interpreter that prints its words."""
    python = clone / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.write_text('#!/bin/sh\nfor word; do printf "%s\\0" "$word"; done\necho\n')
    python.chmod(0o755)
    (clone / ".venv" / ".stamp").touch()


def run_stages(folder: Path, *arguments: str) -> list[list[str]]:
    """The commands that run_stages.sh calls, each as its words, with an interpreter that prints them."""
    clone = folder / "clone"
    shutil.copytree(REPO / "local", clone / "local", dirs_exist_ok=True)
    stub(clone)
    script = STAGES.format(repo=shlex.quote(str(clone)), recipe=shlex.quote(str(folder)))
    result = subprocess.run(["bash", "-c", script, "run.sh", *arguments], capture_output=True, text=True, cwd=folder)
    assert (result.returncode, result.stderr) == (0, "")
    return [line.strip("\0").split("\0") for line in result.stdout.splitlines()]


def stages_of(call: list[str]) -> list[str]:
    """The stages that a command runs."""
    return [word for word in call[3:] if not word.startswith("--")]


def test_each_stage_is_a_command_with_every_option_and_the_sweep_is_one(tmp_path: Path) -> None:
    calls = run_stages(tmp_path)
    sweep = ["train-dense", "train-controls", "compress", "decode"]
    assert calls[0] == ["get_corpus"] and [stages_of(call) for call in calls[1:]] == [
        ["prepare"], ["lang"], ["graph"], sweep, ["export-devices"], ["decode-devices"], ["report"]]
    parser = argparse.ArgumentParser()
    recipe.add_arguments(parser)
    for call in calls[1:]:
        assert call[:3] == ["-m", "asrcompress.cli", "recipe"]
        given = vars(parser.parse_args(call[3:]))
        known = {key: text for key, text in given.items() if key not in ("stages", "only", "part")}
        assert settings.from_words(known).epochs == 3 and known.keys() == settings.defaults().keys()
    for first, last, stages in (("2", "3", [["lang"], ["graph"]]), ("6", "7", [sweep[2:]])):
        assert [stages_of(call) for call in run_stages(tmp_path, "--stage", first, "--stop-stage", last)] == stages


@pytest.mark.parametrize("given", [[], ["--stage", "1"], ["--stage", "6"]])
def test_a_dry_run_has_stages_of_the_sweep_only(tmp_path: Path, given: list[str]) -> None:
    (call,) = run_stages(tmp_path, "--dry-run", *given)
    assert stages_of(call) == (["compress", "decode"] if "6" in given else
                               ["train-dense", "train-controls", "compress", "decode"])
    assert run_stages(tmp_path, "--dry-run", "--stage", "8") == []


def test_files_and_folders_are_named_from_where_the_user_stands(tmp_path: Path) -> None:
    words = ["--dir", "elsewhere", "--corpus", "speech", "--reference", "../figures.csv", "--stage", "10"]
    call = run_stages(tmp_path, *words)[0]
    assert f"--corpus={tmp_path}/speech" in call and f"--reference={tmp_path.parent}/figures.csv" in call


def test_odd_names_reach_python_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "Jürgen run(2) lr=2e-3 a,b it's"
    folder.mkdir()
    calls = run_stages(folder, "--corpus", "my corpus's", "--dir", "it's", "--methods", "svd svd,data_aware=true",
                       "--redo", "--stage", "1")
    assert f"--corpus={folder}/my corpus's" in calls[0] and "--methods=svd svd,data_aware=true" in calls[0]
    assert "--redo=true" in calls[0] and calls[0][3] == "prepare"
    assert "--command=./run.sh --corpus CORPUS --methods \"svd svd,data_aware=true\" --redo --stage 1" in calls[0]


def test_levels_of_whisper_are_parted_by_semicolons_alone(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(REPO / "local", clone / "local")
    shutil.copytree(REPO / "recipes" / "whisper", clone / "recipes" / "whisper")
    stub(clone)
    words = ["--stage", "2", "--stop-stage", "2", "--dir", tmp_path / "out", "--levels", "a=x;\nb=y\nz; c=w"]
    result = subprocess.run([clone / "recipes" / "whisper" / "run.sh", *words], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.rstrip("\n\0").split("\0")[-4:] == ["--levels", "a=x", "\nb=y\nz", " c=w"]
