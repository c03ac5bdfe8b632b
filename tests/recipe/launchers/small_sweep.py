"""A sweep that takes a minute: a dense model of one epoch and svd at two sizes, decoded by greedy search."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from asrcompress.recipe import sweep
from asrcompress.recipe.launchers.base import Launcher
from asrcompress.recipe.settings import Settings, to_words
from asrcompress.report import rows
from tests.conftest import REPO
from tests.recipe.test_recipe import K2_PYTHON, OPTIONS

NAMES = ["dense", "svd-0.25", "svd-0.5"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPO), "K2_PYTHON": K2_PYTHON, "OMP_NUM_THREADS": "1",
               "COLUMNS": "200"}


def settings(corpus: Path, **more: Any) -> Settings:
    """The recipe's options."""
    return Settings(**{"corpus": corpus, "held_out_minutes": 0.1, "train_sets": ("train-quick",), "criterion": "ctc",
                       "test_sets": ("dev-quick",), "model": "tdnn_quick", "epochs": 1, "sizes": (0.5, 0.25),
                       "controls": (), "train_options": OPTIONS, "nj": 1, "searches": ("greedy",), "scales": (1.0,),
                       **more})


def start(folder: Path, stages: tuple[str, ...], given: Settings) -> "subprocess.Popen[str]":
    """Start `asrcompress recipe` in a folder."""
    command = [sys.executable, "-m", "asrcompress.cli", "recipe", *stages, *to_words(given)]
    return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT)


def prepare(folder: Path, given: Settings) -> None:
    """The stages before the sweep."""
    folder.mkdir()
    done = start(folder, ("prepare", "lang", "graph"), given)
    said, _ = done.communicate()
    assert done.returncode == 0, said


def whole(folder: Path) -> bool:
    """Whether every model is there, and every row once."""
    models = {path.parent.name for path in (folder / sweep.EXP).glob("*/.done")}
    found = [row["name"] for row in rows.read(folder / "results.jsonl")]
    left = [path for path in folder.rglob("*.tmp")]
    return sorted(models) == NAMES and sorted(found) == NAMES and not left


def rates(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Name -> what a row says that does not depend on the machine's other work."""
    return {row["name"]: tuple(row[key] for key in ("ter", "words", "sub", "ins", "del", "ci95", "packed_bytes"))
            for row in rows.read(folder / "results.jsonl")}


def ended(launcher: Launcher, handle: object) -> int:
    """The status of a job, once it has ended."""
    for _ in range(1200):
        status = launcher.outcome(handle)
        if status is not None:
            return status
        time.sleep(0.1)
    raise AssertionError("it does not end")
