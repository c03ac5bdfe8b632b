"""Two processes of one training, of which one is killed or fails: none is left, one sentence is said, it goes on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import prepared
from tests.conftest import REPO

OPTIONS = [
    "model.stack=[{dim: 8, taps: 5, stride: 2}, {dim: 12, taps: 3, stride: 2}]",
    "train_sets=[train-quick,dev]",
    "dev_set=dev-quick",
    "training.epochs=3",
    "training.batch_seconds=4",
    "training.precision=32-true",
    "training.workers=0",
    "training.checkpoint_steps=1",
    "training.trainer={accelerator: cpu, devices: 2, strategy: ddp}",
]
WAY = {  # folder, and which rank ends in which epoch (-1: before the ranks are connected) and batch, and how
    "whole": ("whole", None),
    "rank 1": ("cut", [1, 1, 1, "kill"]),
    "rank 0": ("cut", [0, 2, 0, "kill"]),
    "rank 0, early": ("cut", [0, -1, 0, "kill"]),
    "rank 1, early": ("cut", [1, -1, 0, "kill"]),
    "a sentence": ("cut", [1, 2, 1, "say"]),
    "to the end": ("cut", None),
    "one utterance": ("few", None),
}
MORE = {"one utterance": ["training.epoch_fraction=0.01"]}

# Runs `asrcompress train` in a child for each job. The further processes of a training are forked from the first one,
# which has imported everything; tests/training/test_train.py has a training whose processes start from the command.
PROGRAM = """
import atexit, json, os, signal, subprocess, sys, threading, time
from lightning.pytorch.strategies import DDPStrategy
from asrcompress.cli import main
from asrcompress.errors import UserError
import asrcompress.compression, asrcompress.training.train, asrcompress.training.criteria
from asrcompress.training import processes
from asrcompress.training.module import AcousticModule

class Fork:
    def __init__(self, command, env, stdout):
        self.returncode, self.lock, self.pid = None, threading.Lock(), os.fork()
        if self.pid == 0:
            os.environ.update(env)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            run()
    def poll(self):
        with self.lock:
            if self.returncode is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                self.returncode = os.waitstatus_to_exitcode(status) if pid else None
            return self.returncode
    def wait(self):
        while self.poll() is None:
            time.sleep(0.01)
    def kill(self):
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

def end(rank, epoch, batch):
    if deadly and [rank, epoch, batch] == deadly[:3]:
        if deadly[3] == "say":
            raise UserError("what a process has to say")
        os.kill(os.getpid(), signal.SIGKILL)

def connect(self, original=DDPStrategy.setup_distributed):
    end(int(os.environ["LOCAL_RANK"]), -1, 0)
    original(self)

def step(self, batch, index, original=AcousticModule.training_step):
    end(self.global_rank, self.current_epoch, index)
    loss = original(self, batch, index)
    with open(f"{log}.curve{self.global_rank}", "a") as stream:
        print(self.current_epoch, index, float(loss.detach()).hex(), file=stream)
    return loss

def run():
    code = 1
    try:
        code = main(arguments)
    finally:
        sys.stdout.flush()
        atexit._run_exitfuncs()
        os._exit(code)

def group(pid):
    try:
        os.killpg(pid, 0)
        return True
    except ProcessLookupError:
        return False

DDPStrategy.setup_distributed, AcousticModule.training_step, processes.subprocess.Popen = connect, step, Fork
for arguments, log, deadly in json.loads(sys.argv[1]):
    if (pid := os.fork()) == 0:
        os.setsid()
        for number, kind in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{log}.{kind}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        run()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    since = time.monotonic()
    while group(pid) and time.monotonic() - since < 60:
        time.sleep(0.05)
    print(json.dumps([code, group(pid)]), flush=True)
    if group(pid):
        os.killpg(pid, signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def runs(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what each training of `WAY` said and left, and codes.json: its exit, and whether one was left."""
    out, jobs = tmp_path_factory.mktemp("processes"), []
    for name, (folder, deadly) in WAY.items():
        arguments = ["train", *prepared.folders(tiny_corpus), "--out", str(out / folder), *OPTIONS, *MORE.get(name, [])]
        jobs.append((arguments, str(out / name), deadly))
    done = subprocess.run([sys.executable, "-c", PROGRAM, json.dumps(jobs)], cwd=REPO, capture_output=True, text=True,
                          timeout=1800)
    codes = dict(zip(WAY, map(json.loads, done.stdout.splitlines()), strict=True))
    (out / "codes.json").write_text(json.dumps(codes))
    return out


def ended(runs: Path, name: str) -> tuple[int, bool, str]:
    """The exit of a training, whether a process of it was left a minute later, and what it said to standard error."""
    return *json.loads((runs / "codes.json").read_text())[name], (runs / f"{name}.err").read_text()


def curve(runs: Path, folder: str, rank: int) -> dict[str, str]:
    """'epoch batch' -> loss of a rank; what is computed twice, before and after a kill, must be the same."""
    losses: dict[str, str] = {}
    for name in (name for name, (where, _) in WAY.items() if where == folder):
        path = runs / f"{name}.curve{rank}"
        for line in path.read_text().splitlines() if path.exists() else []:
            place, _, loss = line.rpartition(" ")
            assert losses.setdefault(place, loss) == loss, f"{name}: the loss of batch {place} changed"
    return losses


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code", "sentence"), [
    ("rank 1", 1, "asrcompress train: process 1 of the training was ended by signal 9; run the same command again"),
    ("rank 0", -9, "asrcompress train: the other processes of the training are gone"),
    ("rank 0, early", -9, "asrcompress: the first process of the training was killed; run the same command again"),
    ("rank 1, early", 1, "asrcompress: process 1 of the training was ended by signal 9; run the same command again"),
])
def test_the_other_process_ends_with_a_sentence(runs: Path, name: str, code: int, sentence: str) -> None:
    found, left, said = ended(runs, name)
    assert found == code and not left
    assert said.startswith(sentence) and said.count("\n") == 1 and "goes on from its last checkpoint" in said


@pytest.mark.slow
def test_what_a_process_has_to_say_comes_first(runs: Path) -> None:
    code, left, said = ended(runs, "a sentence")
    assert code == 1 and not left
    first, second = said.splitlines()
    assert first == "asrcompress train: what a process has to say"
    assert second.startswith("asrcompress train: process 1 of the training failed (see above); run the same")


@pytest.mark.slow
def test_going_on_equals_going_through(runs: Path) -> None:
    for name in ("whole", "to the end"):
        assert ended(runs, name) == (0, False, "")
    for rank in (0, 1):
        assert len(curve(runs, "whole", rank)) >= 9 and curve(runs, "cut", rank) == curve(runs, "whole", rank)
    assert curve(runs, "whole", 0).keys() == curve(runs, "whole", 1).keys()
    whole, cut = (json.loads((runs / folder / "train.json").read_text()) for folder in ("whole", "cut"))
    assert all(cut[key] == whole[key] for key in ("epochs", "dev_loss", "dev_ter", "unaligned"))
    first, second = ((runs / folder / "model.safetensors").read_bytes() for folder in ("whole", "cut"))
    assert first == second


@pytest.mark.slow
def test_one_utterance_is_enough_for_two_processes(runs: Path) -> None:
    assert ended(runs, "one utterance") == (0, False, "")
    assert curve(runs, "few", 0).keys() == curve(runs, "few", 1).keys() == {"0 0", "1 0", "2 0"}
