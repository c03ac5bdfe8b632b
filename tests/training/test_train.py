import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from asrcompress import models
from asrcompress.cli import main
from asrcompress.compression import loading, save_model
from asrcompress.training.module import AcousticModule
from asrcompress.training.train import average
from tests import prepared
from tests.conftest import REPO

OPTIONS = [
    "model.stack=[{dim: 8, taps: 5, stride: 2}, {dim: 12, taps: 3, stride: 2}]",
    "train_sets=[train-quick]",
    "dev_set=dev-quick",
    "training.epochs=3",
    "training.batch_seconds=10",
    "training.precision=32-true",
    "training.workers=0",
    "training.trainer.accelerator=cpu",
]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning")


def train(corpus: Path, out: Path, *more: str) -> int:
    return main(["train", *prepared.folders(corpus), "--out", str(out), *OPTIONS, *more])


@pytest.fixture(scope="module")
def run(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("train") / "exp"
    assert train(tiny_corpus, out, "training.average={how: last, count: 2}") == 0
    return out


def weights(checkpoint: Path) -> dict[str, np.ndarray]:
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    return {name.removeprefix("model."): value.numpy() for name, value in state.items() if name.startswith("model.")}


def test_the_model_is_the_mean_of_the_last_checkpoints(run: Path) -> None:
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["001.ckpt", "002.ckpt", "latest.ckpt"]
    metadata, tensors = loading.read(run / "model.safetensors")
    first, second = (weights(run / "checkpoints" / f"00{epoch}.ckpt") for epoch in (1, 2))
    assert metadata["model"]["config"]["model"] == "tdnn" and tensors.keys() == first.keys()
    for name, value in tensors.items():
        mean = (first[name].astype(np.float64) + second[name]) / 2
        np.testing.assert_array_equal(value.numpy(), mean.astype(value.numpy().dtype))
    assert not np.array_equal(first["output.weight"], second["output.weight"])


def test_what_a_training_leaves_behind(run: Path) -> None:
    facts = json.loads((run / "train.json").read_text())
    assert facts["precision"] == "32-true"
    assert facts["epochs"] == 3 and facts["unaligned"] == 0 and facts["train_seconds"] > 0
    assert facts["audio_seconds_per_second"] > 0 and 0 < facts["dev_loss"] < 10 and facts["dev_ter"] >= 0
    assert list((run / "tensorboard").glob("events.*"))
    assert not list(run.glob(".*"))


def test_training_again_goes_on_from_the_end(run: Path, tiny_corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {name: (run / name).read_bytes() for name in ("model.safetensors", "train.json")}
    assert train(tiny_corpus, run, "training.average={how: last, count: 2}") == 0
    assert "epoch" not in capsys.readouterr().out.replace("epochs", "")
    assert {name: (run / name).read_bytes() for name in before} == before


def test_train_json_comes_back_from_the_end(run: Path, tiny_corpus: Path) -> None:
    before = (run / "train.json").read_bytes()
    (run / "train.json").unlink()
    assert train(tiny_corpus, run, "training.average={how: last, count: 2}") == 0
    assert (run / "train.json").read_bytes() == before


def test_what_another_training_or_a_kill_left_is_a_sentence(run: Path, tiny_corpus: Path, tmp_path: Path,
                                                            capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(run, tmp_path / "exp")
    latest = tmp_path / "exp" / "checkpoints" / "latest.ckpt"
    for options, sentence in ((["training.epochs=2"], "has 3 epochs begun and training.epochs is 2"),
                              (["model.stack=[{dim: 8, taps: 5, stride: 4}]"], "is one of another training"),
                              (["criterion=lfmmi"], "is one of another training")):
        assert train(tiny_corpus, tmp_path / "exp", *options) == 1
        said = capsys.readouterr().err
        assert sentence in said and "Traceback" not in said
    for kept in (0, 100):
        latest.write_bytes(latest.read_bytes()[:kept])
        assert train(tiny_corpus, tmp_path / "exp") == 1
        said = capsys.readouterr().err
        assert f"the checkpoint {latest} is damaged" in said and "Traceback" not in said


@pytest.mark.parametrize(("config", "sentence"), [
    ({"vocab": 5}, "has 5 tokens, and .* has 40; give the lang folder that it was trained with"),
    ({"features": 40}, "the model takes 40 features a frame, and .* has 80")])
def test_a_model_for_other_data_is_a_sentence(config: dict[str, int], sentence: str, tiny_corpus: Path, tmp_path: Path,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    init = tmp_path / "init.safetensors"
    stack = [{"dim": 8, "taps": 1, "stride": 4}]
    save_model(init, models.build({"model": "tdnn", "vocab": 40, "stack": stack, **config}))
    assert train(tiny_corpus, tmp_path / "exp", "--init", str(init), "training.ctc_epochs=0") == 1
    assert re.search(sentence, capsys.readouterr().err)


@pytest.mark.parametrize(("option", "sentence"), [
    ("optimizer.betas=[0.9,1.5]", "betas are two numbers from 0 to below 1"),
    ("optimizer.weight_decay=-1", "at least 0"), ("augmentation.snr=[10]", "it is two numbers, from and to"),
    ("augmentation.warp=2.5", "from 0 to below 1"), ("augmentation.noise=3", "and to 1"),
    ("augmentation.spec_augment.time_width=-4", "time_width is -4; it is at least 0"),
    ("augmentation.spec_augment.time_fraction=1.5", "is at most 1"),
    ("max_duration=0", "max_duration=null has no limit"),
    ("trainer.accelerator=foo", "training.trainer: .*foo")])
def test_options_out_of_their_range_are_sentences(option: str, sentence: str, tiny_corpus: Path, tmp_path: Path,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tiny_corpus, tmp_path, f"training.{option}") == 1
    said = capsys.readouterr().err
    assert re.search(sentence, said) and "Traceback" not in said


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_mode_of_a_training_is_that_of_its_options(mode: str, run: Path, tiny_corpus: Path, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    step = AcousticModule.training_step
    monkeypatch.setattr(AcousticModule, "training_step", lambda self, *batch: (
        seen.append({module.training for module in self.model.modules()}), step(self, *batch))[1])
    init = ["--init", str(run / "model.safetensors"), "training.ctc_epochs=0", "training.epochs=2"]
    assert train(tiny_corpus, tmp_path, *init, f"training.mode={mode}") == 0
    assert len(seen) > 2 and all(modes == {mode == "train"} for modes in seen)  # also after a validation


def test_no_epochs_give_the_model_as_it_is(run: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    init = run / "model.safetensors"
    assert train(tiny_corpus, tmp_path, "--init", str(init), "training.epochs=0") == 0
    before, after = loading.read(init)[1], loading.read(tmp_path / "model.safetensors")[1]
    assert all(torch.equal(after[name], value) for name, value in before.items())
    facts = json.loads((tmp_path / "train.json").read_text())
    assert facts["epochs"] == 0 and facts["train_seconds"] == 0 and facts["dev_loss"] is None


def test_what_is_rounded_in_training_is_not_averaged(run: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    init, out = tmp_path / "epr.safetensors", tmp_path / "exp"
    assert main(["compress", "--model", str(run / "model.safetensors"), "--out", str(init), "structure=dense",
                 "quantization=epr", "quantization.bits=2", "coder=range"]) == 0
    assert train(tiny_corpus, out, "--init", str(init), "training.average={how: last, count: 2}") == 0
    last = weights(out / "checkpoints" / "002.ckpt")
    assert len(list((out / "checkpoints").glob("00?.ckpt"))) == 2
    assert all(np.array_equal(value, last[name]) for name, value in loading.read(out / "model.safetensors")[1].items())


def test_a_fine_tuned_model_keeps_its_statistics(run: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    init = run / "model.safetensors"
    assert train(tiny_corpus, tmp_path, "--init", str(init), "training=finetune", "training.epochs=1") == 0
    before, after = loading.read(init)[1], loading.read(tmp_path / "model.safetensors")[1]
    same = {name for name, value in before.items() if torch.equal(after[name], value)}
    statistics = {name for name in before if "running_" in name or "num_batches" in name}
    assert statistics and same == statistics


def test_mistyped_options_are_sentences(tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("training.average.cuont=2", "training.optimizer.lr=fast", "training.epoch_fraction=2",
                   "training.precision=half", "+training.augmentation.spec_augment.masks=1", "+schedule.begin=1"):
        assert train(tiny_corpus, tmp_path, option) == 1
        assert "Traceback" not in (said := capsys.readouterr().err) and said.count("\n") == 1, option


def test_best_checkpoints_are_those_with_the_lowest_dev_loss(
    tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # At such a rate the loss is lowest early.
    assert train(tiny_corpus, tmp_path, "training.average={how: best, count: 1}", "training.optimizer.lr=1.0") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    losses = [float(line.split("dev loss ")[1].split(",")[0]) for line in lines]
    best = int(np.argmin(losses))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [f"{best:03d}.ckpt", "latest.ckpt"]
    expected = weights(tmp_path / "checkpoints" / f"{best:03d}.ckpt")
    for name, value in loading.read(tmp_path / "model.safetensors")[1].items():
        np.testing.assert_array_equal(value.numpy(), expected[name])


def test_average_takes_batchnorm_statistics_too(tmp_path: Path) -> None:
    model = torch.nn.BatchNorm1d(3)
    states = [{f"model.{k}": torch.full_like(v, i) for k, v in model.state_dict().items()} for i in (1, 4, 7)]
    for i, state in enumerate(states):
        torch.save({"state_dict": state}, tmp_path / f"{i}.ckpt")
    average([tmp_path / f"{i}.ckpt" for i in range(3)], model)
    assert all((value == 4).all() for value in model.state_dict().values())


def test_a_model_learns(tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tiny_corpus, tmp_path, "training.epochs=8", "training.batch_seconds=4", "dev_set=train-quick") == 0
    losses = [
        float(line.split("dev loss ")[1].split(",")[0])
        for line in capsys.readouterr().out.splitlines()
        if "dev loss" in line
    ]
    assert losses[-1] < losses[0] - 0.05


@pytest.mark.slow
@pytest.mark.parametrize("smaller", [[], ["structure=svd", "structure.rank_multiple=1", "size=0.5",
                                          "schedule=truncate", "training.average.count=1"]], ids=["as is", "smaller"])
def test_two_processes_train_one_model(tiny_corpus: Path, tmp_path: Path, smaller: list[str]) -> None:
    """Lightning's ddp over gloo: both ranks have one learning rate, so one set of weights, and average alike.

    Also where the layers, and with them the parameters that ddp reduces, change on the way.
    """
    program = """
import os, sys
from asrcompress.cli import main
from asrcompress.training.module import AcousticModule

def note(self):
    total = sum(float(p.double().abs().sum()) for p in self.model.parameters())
    with open(f"{sys.argv[1]}.{self.global_rank}", "a") as stream:
        rate = self.optimizers().param_groups[0]["lr"]
        print(self.trainer.world_size, self.seconds.hex(), rate.hex(), total.hex(), file=stream)

AcousticModule.on_train_epoch_end = note
sys.exit(main(sys.argv[2:]))
"""
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run(
        [
            sys.executable,
            tmp_path / "program.py",
            tmp_path / "note",
            "train",
            *prepared.folders(tiny_corpus),
            "--out",
            tmp_path / "exp",
            *OPTIONS,
            "train_sets=[train-quick,dev]",
            "training.batch_seconds=4",
            "training.trainer.devices=2",
            "training.trainer.strategy=ddp",
            *smaller,
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPO)},
    )
    assert done.returncode == 0, done.stderr
    first, second = ((tmp_path / f"note.{rank}").read_text() for rank in range(2))
    assert first == second and first.startswith("2 ") and len(first.splitlines()) == 3
    states = [weights(path) for path in sorted((tmp_path / "exp" / "checkpoints").glob("0*.ckpt"))]
    for name, value in loading.read(tmp_path / "exp" / "model.safetensors")[1].items():
        mean = np.mean([state[name].astype(np.float64) for state in states], 0)
        np.testing.assert_allclose(value.numpy(), mean.astype(value.numpy().dtype), atol=1e-6)
