"""A training that kill -9 cut off and that goes on equals one that was left alone, bit for bit."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import prepared
from tests.conftest import REPO

OPTIONS = [
    "model.stack=[{dim: 16, taps: 5, stride: 2}, {dim: 24, taps: 3, stride: 2}, "
    "{dim: 24, taps: 3, repeat: 2, bottleneck: 8}]",
    "train_sets=[train-quick,dev]",
    "dev_set=dev-quick",
    "criterion=lfmmi",
    "training.ctc_epochs=1",
    "training.epochs=3",
    "training.batch_seconds=7",
    "training.precision=32-true",
    "training.workers=0",
    "training.semi_orthogonal_every=1",
    "training.average={how: last, count: 2}",
    "training.trainer.accelerator=cpu",
]
SMALLER = [  # gets smaller while it is trained: cuts in the epochs 0, 1 and 2
    "structure=semi_orthogonal",
    "structure.rank_multiple=1",
    "size=0.5",
    "schedule=truncate",
    "training.epochs=4",
    "training.average={how: last, count: 1}",
    "training.checkpoint_steps=1",
]
BEST = ["criterion=ctc", "training.ctc_epochs=0", "training.average={how: best, count: 2}"]
TAUGHT = ["criterion=distillation", "criterion.hard=ctc", "criterion.weight=0.7",
          "criterion.hidden=[[layers.3,layers.1]]", "training.ctc_epochs=0", "training.checkpoint_steps=1"]
LMA = ["model.activation=lma", "training.checkpoint_steps=1"]  # whose borders move
VIEWS = ["criterion=consistency", "training.checkpoint_steps=1"]
TIED = ["structure=tied", "size=0.95", "schedule=pull", "schedule.penalty=10", *SMALLER[4:]]  # tied in epoch 2

# Runs `asrcompress train` in a child for each job, which notes every loss and kills itself in the batch it is told.
PROGRAM = """
import json, os, signal, sys
from asrcompress.cli import main
import asrcompress.training.train, asrcompress.compression, asrcompress.training.criteria  # once, for all children
from asrcompress.training.module import AcousticModule

def watch(name, deadly):
    def method(self, batch, index, original=getattr(AcousticModule, name)):
        loss = original(self, batch, index)
        if name == "training_step":
            curve.write(f"{self.current_epoch} {index} {float(loss).hex()}\\n")
        if [name, self.current_epoch, index] == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss
    setattr(AcousticModule, name, method)

for arguments, log, deadly in json.loads(sys.argv[1]):
    if os.fork() == 0:
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
        curve = open(f"{log}.curve", "a", buffering=1)
        watch("training_step", deadly), watch("validation_step", deadly)
        code = main(arguments)
        sys.stdout.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


class Jobs:
    """Trainings into folders of `out`, each to its end, or killed by SIGKILL at (method, epoch, batch)."""

    def __init__(self, corpus: Path, out: Path) -> None:
        self.corpus, self.out = corpus, out
        self.jobs: list[tuple[list[str], str, list | None]] = []

    def __call__(self, name: str, deadly: list | None = None, *more: str) -> None:
        """One more; of the same name as one before, it goes on where that was killed."""
        arguments = ["train", *prepared.folders(self.corpus), "--out", str(self.out / name), *OPTIONS, *more]
        self.jobs.append((arguments, str(self.out / f"{name}.log"), deadly))

    def run(self) -> Path:
        """All of them, in their order; the folder."""
        done = subprocess.run([sys.executable, "-c", PROGRAM, json.dumps(self.jobs)], cwd=REPO, capture_output=True,
                              text=True)
        expected = [-9 if deadly else 0 for *_, deadly in self.jobs]
        assert [int(code) for code in done.stdout.split()] == expected, done.stderr
        return self.out


@pytest.fixture(scope="module")
def runs(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of the same training: whole, and cut off by SIGKILL at several places."""
    job = Jobs(tiny_corpus, tmp_path_factory.mktemp("resume"))
    job("whole")
    job("epoch", ["training_step", 1, 2])
    job("epoch")
    for deadly in (["training_step", 0, 3], ["training_step", 1, 2], ["validation_step", 1, 0], None):
        job("steps", deadly, "training.checkpoint_steps=2")
    for deadly in (["validation_step", 0, 0], ["validation_step", 2, 0], None, None):
        job("every", deadly, "training.checkpoint_steps=1")
    job("chosen", None, *BEST)
    for deadly in (["training_step", 2, 0], None, None):
        job("best", deadly, *BEST)
    job("smaller", None, *SMALLER)
    for deadly in (["training_step", 0, 3], ["training_step", 1, 2], ["training_step", 2, 0], None):
        job("cut", deadly, *SMALLER)
    return job.run()


@pytest.fixture(scope="module")
def others(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of trainings with a teacher and hidden layers, with two views, and with blocks that are tied."""
    job = Jobs(tiny_corpus, tmp_path_factory.mktemp("resume"))
    job("teacher", None, "training.epochs=1")
    teacher = f"criterion.teacher={job.out / 'teacher' / 'model.safetensors'}"
    for through, name, more in (("taught", "pupil", [*TAUGHT, teacher]), ("views", "viewed", VIEWS),
                                ("segments", "moved", LMA)):
        job(through, None, *more)
        job(name, ["training_step", 1, 1], *more)
        job(name, None, *more)
    job("tied", None, *TIED)
    for deadly in (["training_step", 1, 1], ["training_step", 2, 2], None):
        job("pulled", deadly, *TIED)
    return job.run()


def curve(runs: Path, name: str) -> dict[str, str]:
    """'epoch batch' -> loss; what is computed twice, before and after a kill, must be the same."""
    losses: dict[str, str] = {}
    for line in (runs / f"{name}.log.curve").read_text().splitlines():
        place, _, loss = line.rpartition(" ")
        assert losses.setdefault(place, loss) == loss, f"{name}: the loss of batch {place} changed"
    return losses


def epochs(runs: Path, name: str) -> set[str]:
    """The lines of the epochs, without the speed."""
    return set(re.findall(r"epoch .*(?=, \d+ s of audio)", (runs / f"{name}.log").read_text()))


@pytest.mark.parametrize(("name", "through"), [("epoch", "whole"), ("steps", "whole"), ("every", "whole"),
                                               ("best", "chosen"), ("cut", "smaller")])
def test_going_on_equals_going_through(runs: Path, name: str, through: str) -> None:
    check_going_on_equals_going_through(runs, name, through)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "through"), [("pupil", "taught"), ("viewed", "views"), ("moved", "segments"),
                                               ("pulled", "tied")])
def test_other_trainings_go_on_as_well(others: Path, name: str, through: str) -> None:
    check_going_on_equals_going_through(others, name, through)


def check_going_on_equals_going_through(runs: Path, name: str, through: str) -> None:
    """The same losses, figures and model, bit for bit."""
    assert len(curve(runs, through)) > 9 and len(epochs(runs, through)) >= 3
    assert curve(runs, name) == curve(runs, through) and epochs(runs, name) == epochs(runs, through)
    whole, cut = (json.loads((runs / folder / "train.json").read_text()) for folder in (through, name))
    assert all(cut[key] == whole[key] for key in ("epochs", "dev_loss", "dev_ter", "unaligned"))
    first, second = ((runs / folder / "model.safetensors").read_bytes() for folder in (through, name))
    assert first == second


def test_a_training_keeps_one_checkpoint_of_an_epoch(runs: Path) -> None:
    assert not [path for path in runs.glob("*/checkpoints/*") if not re.fullmatch(r"\d+|latest", path.stem)]
    assert len(list(runs.glob("*/checkpoints/*"))) > 20


def test_a_model_that_gets_smaller_was_cut_off_before_between_and_after_its_cuts(runs: Path) -> None:
    log = (runs / "cut.log").read_text()
    sizes = [float(size) for size in re.findall("semi_orthogonal: (.*) M parameters", log)]
    assert len(sizes) >= 3 and sizes == sorted(sizes, reverse=True), log


@pytest.mark.slow
def test_blocks_were_tied_once(others: Path) -> None:
    assert len(re.findall("tied: .* M parameters", (others / "pulled.log").read_text())) in (1, 2)
    assert "tied: dense, as it would not make them smaller: layers.0.conv, layers.1.conv, output" in (
        others / "tied.log").read_text()


def test_checkpoints_within_epochs_save_work(runs: Path) -> None:
    lines = {
        name: len((runs / f"{name}.log.curve").read_text().splitlines())
        for name in ("whole", "epoch", "steps", "every")
    }
    assert lines["epoch"] == lines["whole"] + 3  # three batches of epoch 1 were computed twice
    assert lines["steps"] == lines["whole"] + 2 + 2 + 2  # two batches at each kill
    assert lines["every"] == lines["whole"] + 2  # the last batch before each of the two kills
