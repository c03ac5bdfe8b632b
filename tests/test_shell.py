"""The shell that the recipes share, run with bash."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

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


DEVICE = """
set -euo pipefail
. {repo}/local/models.sh
. {repo}/local/device.sh
data=data lang=lang graph=graph train_sets="one two " test_sets="dev-a dev-b" nj=1 command=./run.sh device_beam=20
scales=1,1.5 blank_penalties=0
devices=$1 precisions=$2
run() {{
  echo "$*" >> log
  case "$1 $*" in
    decode*/greedy) mkdir -p "${{@: -1}}"; echo '{{"rtf": 0.5}}' > "${{@: -1}}/decode.json";;
    decode*/HLG) mkdir -p "${{@: -1}}"; echo '{{"rtf": 0.7}}' > "${{@: -1}}/decode.json";;
    posteriors*) touch "${{@: -1}}";;
  esac
}}
search() {{ echo "search $*" >> log; }}
json() {{ sed -n 's/.*"'"$2"'": \\([0-9.]*\\).*/\\1/p' "$1"; }}
for file in $(device_files); do
  once "exp/${{file%/*}}/device/${{file#*/}}" export_device "${{file%/*}}" "${{file#*/}}"
  decode_device "${{file%/*}}" "${{file#*/}}" > /dev/null
done
device_files
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with three models that are done, and one that is not."""
    for name in ("dense", "svd-0.5", "int8", "svd-0.25"):
        (tmp_path / "exp" / name).mkdir(parents=True)
        (tmp_path / "exp" / name / "row").write_text(f"name={name}\ncommand=./old.sh\n")
        if name != "svd-0.25":
            (tmp_path / "exp" / name / ".done").touch()
        (tmp_path / "exp" / name / "decode" / "dev").mkdir(parents=True)
        (tmp_path / "exp" / name / "decode" / "dev" / "best.json").write_text(
            f'{{"acoustic_scale": {1.0 if name == "dense" else 1.5}, "blank_penalty": 0.0}}')
        if name != "svd-0.5":
            (tmp_path / "exp" / name / "decode" / "dev" / ".done").touch()
    return tmp_path


def devices(folder: Path, names: str, precisions: str) -> tuple[subprocess.CompletedProcess, list[str]]:
    """The files that the device stages name, and the commands that they run."""
    script = DEVICE.format(repo=REPO)
    result = subprocess.run(["bash", "-c", script, "script", names, precisions], capture_output=True, text=True,
                            cwd=folder)
    log = folder / "log"
    return result, log.read_text().splitlines() if log.exists() else []


def test_device_files_and_their_commands(models: Path) -> None:
    result, commands = devices(models, "", "float32 int8-static")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split() == ["dense/float32", "dense/int8-static", "svd-0.5/float32", "svd-0.5/int8-static"]
    exports = [command for command in commands if command.startswith("export ")]
    assert exports[0] == ("export exp/dense/model.packed --lang lang --out exp/dense/device/float32 "
                          "--precision float32 --batch1 --data data --set dev --acoustic-scale 1.0 --beam 20")
    assert "--acoustic-scale 1.5" in exports[2]
    sweeps = [command for command in commands if command.startswith("search exp/svd-0.5/decode/dev/")]
    assert sweeps == ["search exp/svd-0.5/decode/dev/posteriors 1,1.5 0 exp/svd-0.5/decode/dev/sweep"]  # once
    assert ["--calibrate-set one" in command for command in exports] == [False, True, False, True]
    scores = [command for command in commands if command.startswith("score ") and "--sweep" not in command]
    assert len(scores) == 4 * 2 * 3  # files, test sets, searches
    greedy, hlg, k2 = (scores[-1 - back] for back in (2, 1, 0))
    for score, search, hypotheses, info, rtf in ((greedy, "greedy", "tokens.txt", "greedy.json", "--row=rtf=0.5"),
                                                 (hlg, "HLG", "hyp.txt", "HLG.json", "--row=rtf=0.7"),
                                                 (k2, "tgsmall", "hyp.txt", "onnxruntime.json", "")):
        found = f"decode/dev-b/{search}"
        assert f"--dense-hyp exp/dense/device/float32/{found}/{hypotheses}" in score
        assert f"--model-info exp/svd-0.5/device/int8-static/{info} " in score and rtf in score
        assert score.endswith("--row=command=./run.sh --row=precision=int8-static --row=test_set=dev-b "
                              f"--row=search={search}")
    (models / "log").unlink()
    assert devices(models, "", "float32 int8-static")[1] == []  # everything is done


def test_device_files_that_were_named(models: Path) -> None:
    assert devices(models, "none", "float32")[0].stdout == ""
    assert devices(models, "int8", "float16")[0].stdout.split() == ["dense/float32", "int8/float16"]
    result, _ = devices(models, "svd-0.25", "float32")
    assert result.returncode == 1
    assert result.stderr == "run.sh: exp/svd-0.25/.done is missing: run stages 4 to 6, or give other --devices\n"
    assert not (models / "exp/svd-0.25/device/float32/.done").exists()


def test_recipe_names_its_stages() -> None:
    result = subprocess.run([REPO / "recipes" / "librispeech" / "run.sh", "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    stages = " ".join(result.stdout.partition("stages: ")[2].split())
    assert stages.endswith("7 decoding, 8 device files, 9 decoding in sherpa-onnx, 10 report")
    assert "--device-beam" in result.stdout and "--precisions" in result.stdout
