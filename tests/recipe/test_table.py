"""recipes/librispeech/table.sh: every part asks for models that the sweep can make."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from asrcompress.recipe import graph
from asrcompress.recipe.settings import from_words
from tests.conftest import REPO

RUN = """#!/usr/bin/env bash
printf '%s\\0' "$@" >> calls
printf '\\n' >> calls
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A copy of the script beside a run.sh that writes down what it is told."""
    copy = Path(shutil.copy(REPO / "recipes/librispeech/table.sh", tmp_path))
    (tmp_path / "run.sh").write_text(RUN)
    (tmp_path / "run.sh").chmod(0o755)
    return copy


def test_every_part_can_be_made(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run([script, "all", "--nj", "1"], check=True)
    monkeypatch.chdir(script.parent)
    made = dict[str, str]()
    for call in Path("calls").read_text().split("\n")[:-1]:
        words = call.split("\0")[:-1]
        given = {key[2:].replace("-", "_"): value for key, value in zip(words[::2], words[1::2], strict=True)}
        first, last = int(given.pop("stage")), int(given.pop("stop_stage"))
        assert given["nj"] == "1", "options of run.sh are passed on"
        settings = replace(from_words({**given, "command": "./run.sh"}), dense_model="")
        if not settings.experiments:  # which may start from any size
            settings = replace(settings, sizes=settings.sizes[:1])
        stages = ["train-dense", "train-controls", "compress", "decode"][first - 4:last - 3]  # in an empty folder
        for task in graph.tasks(settings, stages):
            if task.job:
                assert made.setdefault(task.job.name, task.job.kind) == task.job.kind
    assert {"half", "half-taught", "svd-data_aware-0.5", "hashed-0.25-scratch", "svd-0.5-during",
            "svd-0.25-epr-2"} <= set(made)


def test_a_part_that_there_is_not(script: Path) -> None:
    for words in ([], ["low-rank"]):
        said = subprocess.run([script, *words], capture_output=True, text=True)
        assert said.returncode == 1 and "low_rank" in said.stderr and not (script.parent / "calls").exists()
