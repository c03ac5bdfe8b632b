"""Two processes over gloo against one: all quantizations, schedules and criteria, with the same global batches.

The model has no BatchNorm and no dropout: those depend on how a batch is divided. Each job is a pair of forked
children; the parent has imported everything once.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from asrcompress.compression import quantization
from asrcompress.training import criteria, schedules
from tests.conftest import REPO

# stochastic_depth: of a Conformer, whose ranks leave out other blocks. batchnorm: of a TDNN, by each rank's statistics
MODELS = ["conformer", "stochastic_depth", "batchnorm"]
VARIANTS = ["hidden", "clean"]  # of distillation: with hidden layers, and from clean features
GO_ON = [*quantization.names(), *schedules.names(), *MODELS, *VARIANTS]
CRITERIA = criteria.names()
OWN_DRAWS = {"stochastic_depth", "batchnorm", "label_kl"}  # each process has its own, so the sum is not one process's
STEPS = 3  # batches of an epoch; there are two epochs before the averaged one

PROGRAM = '''
import json, os, socket, sys
from pathlib import Path
import torch
from lightning import LightningDataModule, Trainer
torch.set_num_threads(1)
from asrcompress import models
from asrcompress.compression import Plan, quantization
from asrcompress.data.batches import SkipFirst
from asrcompress.options import make
from asrcompress.training import criteria, schedules
from asrcompress.training.callbacks.quantization import QuantizationTraining
from asrcompress.training.callbacks.resume_checkpoint import AtomicCheckpointIO, ResumeCheckpoint
from asrcompress.training.module import AcousticModule
from asrcompress.training.options import AverageOptions, OptimizerOptions, TrainingOptions

OPTIONS = TrainingOptions(epochs=3, ctc_epochs=0, optimizer=OptimizerOptions(5e-3), average=AverageOptions("last", 1))
STEPS, SECONDS = 3, 0.5 * 4 * 9

class Data(LightningDataModule):
    """STEPS batches of four utterances an epoch, of which each rank has its part: uneven ones of the last."""
    def __init__(self):
        super().__init__()
        self.skip = 0
    def train_dataloader(self):
        world, rank, skip = self.trainer.world_size, self.trainer.global_rank, self.skip
        self.skip = 0
        made = [whole(100 * self.trainer.current_epoch + i) for i in range(STEPS)]
        split = [slice(0, 4) if world == 1 else (slice(0, 2), slice(2, 4))[rank]] * (STEPS - 1)
        split.append(slice(0, 4) if world == 1 else (slice(0, 3), slice(3, 4))[rank])
        mine = [views({key: value[part] for key, value in one.items()}, self.trainer.lightning_module.criterion.views)
                for one, part in zip(made, split)]
        return torch.utils.data.DataLoader(mine, sampler=SkipFirst(range(STEPS), skip), batch_size=None)
    def val_dataloader(self):  # three batches, of which the second rank has one
        parts = [slice(0, 4)] if self.trainer.world_size == 1 else [slice(0, 1), slice(1, 2), slice(2, 3)]
        parts = [slice(3, 4)] if self.trainer.global_rank else parts
        return torch.utils.data.DataLoader([{key: value[part] for key, value in whole(9).items()} for part in parts],
                                           batch_size=None)
    def state_dict(self):
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        return {"skip": 0 if progress.is_last_batch else progress.current.ready}
    def load_state_dict(self, state):
        self.skip = state["skip"]

def views(batch, count):
    if count == 1:
        return batch
    twice = {key: value * 2 if key == "ids" else torch.cat([value, value]) for key, value in batch.items()}
    return {**twice, "x": torch.cat([batch["x"], batch["clean"]])}

def whole(seed):
    g = torch.Generator().manual_seed(seed)
    return {"x": torch.randn(4, 60, 8, generator=g), "x_lens": torch.tensor([60, 44, 52, 40]),
            "targets": torch.randint(1, 6, (4, 4), generator=g), "target_lens": torch.tensor([4, 3, 4, 2]),
            "ids": [f"{seed} {i}" for i in range(4)], "clean": torch.randn(4, 60, 8, generator=g)}

class Noting(AcousticModule):
    def training_step(self, batch, index):
        loss = super().training_step(batch, index)
        total = sum(float(p.detach().double().abs().sum()) for p in self.model.parameters())
        mean = float(self.mean_of_ranks(loss.detach()))
        note.write(json.dumps([self.current_epoch, index, mean, total]) + "\\n")
        if [self.current_epoch, index] == deadly:
            os._exit(9)  # both ranks are at the same step
        return loss
    def on_validation_epoch_end(self):
        held_out = [float(self.trainer.callback_metrics[name]) for name in ("dev_loss", "dev_ter")]
        note.write(json.dumps([self.current_epoch, "dev", *held_out]) + "\\n")

def run(kind, name, world, folder):
    torch.manual_seed(0)
    model = models.build({"model": "tdnn", "features": 8, "vocab": 6, "folded": True, "stack": [
        {"dim": 12, "taps": 3, "stride": 2}, {"dim": 12, "taps": 3, "stride": 2}, {"dim": 12, "taps": 3}]})
    own, criterion = [QuantizationTraining()], criteria.build("ctc", 6)
    if kind in ("criterion", "variant"):
        options = {"hidden": {"hidden": (("layers.2", "layers.1"),)}, "clean": {"teacher_input": "clean"}}.get(name, {})
        if kind == "variant":
            name, options = "distillation", {"hard": "ctc", "weight": 0.7, **options}
        cls, targets = criteria.family(name), [[1, 2, 3], [3, 4, 5, 1], [2, 5]]
        if criteria.taught(name):
            teacher = models.build({**model.config, "stack": model.config["stack"][:2] + [{"dim": 8, "taps": 3}]})
            criterion = cls({"teacher": teacher}, 6, make(cls.Options, options, name), targets)
        else:
            criterion = criteria.build(name, 6, targets)
    elif name == "batchnorm":
        model = models.build({**model.config, "folded": False})
    elif kind == "model":
        model = models.build({"model": "conformer", "features": 8, "vocab": 6, "folded": True, "dim": 8, "heads": 2,
                              "hidden": 12, "kernel": 3, "blocks": 2, "front": 8, "dropout": 0.0,
                              "stochastic_depth": 0.5 if name == "stochastic_depth" else 0.0})
    elif kind == "quantization":
        extra = {"density": 0.3, "schedule": "cubic"} if name == "pruned" else {}
        model = quantization.apply(model, name, **extra)
    else:
        cls = schedules.family(name)
        plan = Plan("tied", 0.8) if name == "pull" else Plan("svd", 0.6, options={"rank_multiple": 1})
        own.append(cls(plan, make(cls.Options, {}, name), OPTIONS))
        own[1].begin(model)
    module = Noting(model, criterion, OPTIONS, 0, 3 * STEPS * 1.96)
    resume = folder / "latest.ckpt"
    ddp = {"strategy": "ddp", "devices": 2} if world == 2 else {"devices": 1}
    trainer = Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_progress_bar=False,
                      enable_model_summary=False, use_distributed_sampler=False, plugins=[AtomicCheckpointIO()],
                      reload_dataloaders_every_n_epochs=1, callbacks=[*own, ResumeCheckpoint(resume, 1)], **ddp)
    trainer.fit(module, Data(), ckpt_path=str(resume) if resume.exists() else None, weights_only=True)

out = Path(sys.argv[1])
for kind, name, world, where, deadly in json.loads(sys.argv[2]):
    folder = out / f"{name}-{where}"
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(world):
        if (child := os.fork()) == 0:
            os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            if world == 1:
                del os.environ["LOCAL_RANK"]
            note = open(f"{folder}.{rank}", "a", buffering=1)
            code = 1
            try:
                run(kind, name, world, folder)
                code = 0
            except BaseException:
                import traceback
                traceback.print_exc()
            os._exit(code)
        children.append(child)
    print("job", name, where, *[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children], flush=True)
'''


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each training in one process, in two, and in two that stopped in the middle of an epoch and went on."""
    out = tmp_path_factory.mktemp("ddp")
    jobs: list[list] = []
    for kind, names in (("quantization", quantization.names()), ("schedule", schedules.names()), ("model", MODELS),
                        ("variant", VARIANTS), ("criterion", CRITERIA)):
        for name in names:
            jobs += [[kind, name, 1, "one", None], [kind, name, 2, "two", None]]
            if name in GO_ON:
                jobs += [[kind, name, 2, "cut", [1, 1]], [kind, name, 2, "cut", None]]
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(out), json.dumps(jobs)], cwd=REPO, capture_output=True,
                          text=True, timeout=900)
    expected = [f"job {name} {where}{world * (' 9' if deadly else ' 0')}" for _, name, world, where, deadly in jobs]
    assert [line for line in done.stdout.splitlines() if line.startswith("job")] == expected, done.stderr[-3000:]
    return out


def curve(runs: Path, name: str, where: str, rank: int = 0) -> dict[tuple[int, int | str], tuple[float, float]]:
    """(epoch, batch) -> (loss, sum of the parameters' magnitudes) before the step; (epoch, "dev") -> the held-out ones.
    """
    lines = (runs / f"{name}-{where}.{rank}").read_text().splitlines()
    return {(epoch, index): (loss, total) for epoch, index, loss, total in map(json.loads, lines)}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*GO_ON, *CRITERIA])
def test_two_processes_train_as_one(runs: Path, name: str) -> None:
    one, two, other = (curve(runs, name, *where) for where in (("one",), ("two",), ("two", 1)))
    assert len(one) == 3 * (STEPS + 1) and one.keys() == two.keys()
    assert two == other, "both ranks have one model"
    tolerance = 2e-2 if name == "epr" else 1e-3  # the rate of epr is estimated with noise of its own in each process
    losses, held_out = ([[found[step][0] for step in found if (step[1] == "dev") == dev] for found in (one, two)]
                        for dev in (False, True))
    if name not in OWN_DRAWS:
        np.testing.assert_allclose(losses[1], losses[0], rtol=tolerance)
        np.testing.assert_allclose(held_out[1], held_out[0], rtol=tolerance)
    assert losses[0][-1] != losses[0][0] and held_out[0][-1] != held_out[0][0]


@pytest.mark.slow
@pytest.mark.parametrize("name", GO_ON)
def test_two_processes_go_on_where_they_were_cut_off(runs: Path, name: str) -> None:
    assert curve(runs, name, "cut") == curve(runs, name, "two")
