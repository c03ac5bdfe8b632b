"""A recipe's training on two processes, of which one is killed from outside."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPO

TRAIN = ("training.batch_seconds=2 training.workers=0 training.precision=32-true training.checkpoint_steps=1 "
         "training.trainer.accelerator=cpu training.trainer.devices=2 training.trainer.strategy=ddp")


def second_processes(session: int) -> list[int]:
    """Process ids of the trainings of a session that the first process of one started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(folder.name)) == session and b"LOCAL_RANK=1" in (
                (folder / "environ").read_bytes().split(b"\0")
            ):
                found.append(int(folder.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


@pytest.mark.slow
def test_a_killed_process_stops_the_recipe_which_then_goes_on(tiny_corpus: Path, tmp_path: Path) -> None:
    options = {"corpus": tiny_corpus, "train-sets": "train-quick", "test-sets": "dev-quick", "held-out-minutes": 0.1,
               "model": "tdnn_quick", "criterion": "ctc", "epochs": 6, "nj": 1, "train-options": TRAIN}
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, "-m", "asrcompress.cli", "recipe", "prepare", "lang", "train-dense", *words]
    start = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(REPO)}, "stderr": subprocess.PIPE, "text": True}
    first = subprocess.Popen(command, start_new_session=True, **start)
    checkpoint = tmp_path / "exp" / "dense" / "checkpoints" / "latest.ckpt"
    while not checkpoint.exists() and first.poll() is None:
        time.sleep(0.02)
    (second,) = second_processes(first.pid)
    os.kill(second, signal.SIGKILL)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 1 and not second_processes(first.pid)
    assert [line.split(";")[0] for line in said.splitlines() if line.startswith("asrcompress")] == [
        "asrcompress train: process 1 of the training was ended by signal 9", "asrcompress recipe: asrcompress train "
        "failed (see above)"]
    assert "Traceback" not in said and not (tmp_path / "exp" / "dense" / "row.json").exists()
    again = subprocess.run(command, **start)
    assert again.returncode == 0 and (tmp_path / "exp" / "dense" / "row.json").exists(), again.stderr
