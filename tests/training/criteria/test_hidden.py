"""Hidden layers against numpy, and what is thrown away after the training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from asrcompress import compression, models
from asrcompress.config import compose
from asrcompress.errors import UserError
from asrcompress.training import criteria
from asrcompress.training.criteria._hidden import HiddenLayers, outputs
from asrcompress.training.criteria.distillation import Distillation, DistillationOptions
from asrcompress.training.module import AcousticModule
from asrcompress.training.options import TrainingOptions

VOCAB = 6
LENGTHS = torch.tensor([15, 10])
VALID = torch.arange(15) < LENGTHS[:, None]


def tdnn(seed: int, dim: int = 8) -> models.AcousticModel:
    torch.manual_seed(seed)
    rows = [{"dim": dim, "taps": 5, "stride": 2}, {"dim": dim, "taps": 3, "stride": 2}, {"dim": dim, "taps": 3}]
    return models.build({"model": "tdnn", "features": 80, "vocab": VOCAB, "dropout": 0.0, "stack": rows}).eval()


def conformer(seed: int, stochastic_depth: float = 0.0) -> models.AcousticModel:
    torch.manual_seed(seed)
    return models.build({"model": "conformer", "features": 80, "vocab": VOCAB, "dim": 12, "heads": 2, "hidden": 8,
                         "blocks": 2, "kernel": 3, "front": 8, "dropout": 0.0,
                         "stochastic_depth": stochastic_depth}).eval()


def heard(model: models.AcousticModel, path: str) -> dict[str, Tensor]:
    x = torch.randn(2, 60, 80, generator=torch.Generator().manual_seed(0))
    with outputs(model, [path]) as found:
        model(x, torch.tensor([60, 40]))
    return found


def test_distance_against_numpy_across_families() -> None:
    teacher, student = tdnn(0), conformer(1)
    hidden = HiddenLayers(teacher, student, [["layers.2", "blocks.1.norm"]])
    linear = hidden.maps[0]
    torch.nn.init.normal_(linear.weight)
    torch.nn.init.normal_(linear.bias)
    assert linear.weight.shape == (8, 12)
    h_t, h_s = heard(teacher, "layers.2"), heard(student, "blocks.1.norm")
    given = h_s["blocks.1.norm"].detach().double().numpy() @ linear.weight.detach().double().numpy().T
    given = given + linear.bias.detach().double().numpy()
    wanted = h_t["layers.2"].detach().double().numpy().transpose(0, 2, 1)
    one, two = ((h - h.mean(2, keepdims=True)) / np.sqrt(h.var(2, keepdims=True) + 1e-5) for h in (given, wanted))
    expected = ((one - two) ** 2).mean(2)[VALID.numpy()].mean()
    assert hidden(h_t, h_s, VALID).item() == pytest.approx(expected, rel=1e-4)


def test_a_permuted_student_and_that_permutation_are_at_distance_zero() -> None:
    teacher = tdnn(0)
    hidden = HiddenLayers(teacher, teacher, [["layers.1", "layers.1"]])
    found, order = heard(teacher, "layers.1"), torch.randperm(8, generator=torch.Generator().manual_seed(0))
    assert hidden(found, found, VALID).item() == 0.0  # equal nets: the identity at the start
    permuted = {"layers.1": found["layers.1"][:, order]}
    assert hidden(found, permuted, VALID) > 0.01
    with torch.no_grad():
        hidden.maps[0].weight.copy_(torch.eye(8)[torch.argsort(order)])
    assert hidden(found, permuted, VALID) < 1e-10
    padded = {"layers.1": found["layers.1"].clone()}
    padded["layers.1"][1, :, 10:] = 100.0
    torch.testing.assert_close(hidden(padded, permuted, VALID), torch.tensor(0.0), rtol=0, atol=1e-10)


def module(weight: float = 1.0, student: models.AcousticModel | None = None,
           pair: tuple[str, str] = ("layers.2", "layers.1"), **more: Any) -> AcousticModule:
    options = DistillationOptions(hidden=(pair,), hidden_weight=weight, **more)
    criterion = Distillation({"t": tdnn(0)}, VOCAB, options)
    return AcousticModule(student or tdnn(1, 4), criterion, TrainingOptions(), 0, 1.0)


def batch() -> dict[str, Any]:
    return {"x": torch.randn(2, 60, 80, generator=torch.Generator().manual_seed(0)), "x_lens": torch.tensor([60, 40]),
            "targets": torch.ones(2, 1).long(), "target_lens": torch.tensor([1, 1]), "ids": ["a", "b"]}


def loss(mine: AcousticModule, monkeypatch: pytest.MonkeyPatch, progress: float = 0.0) -> dict[str, Tensor]:
    monkeypatch.setattr(AcousticModule, "current_epoch", 99)
    mine.criterion.progress = progress
    return mine._loss(batch())[2]


def test_the_weight_falls_to_nothing_by_half_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = module(weight=3.0)
    mine.train()
    for progress, weight in ((0.0, 3.0), (0.25, 1.5), (0.5, 0.0), (0.9, 0.0)):
        result = loss(mine, monkeypatch, progress)
        torch.testing.assert_close(result["loss"], result["soft"] + weight * result["hidden"])
    mine.eval()
    with torch.no_grad():
        assert "hidden" not in loss(mine, monkeypatch)


def test_the_map_is_trained_but_in_no_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mine = module()
    mine.train()
    loss(mine, monkeypatch)["loss"].backward()
    (linear,) = mine.criterion.hidden.maps
    assert linear.weight.grad.abs().max() > 0 and mine.model.get_parameter("layers.1.conv.weight").grad.abs().max() > 0
    assert linear.weight in set(mine.parameter_groups()[0]) and linear.bias in set(mine.parameter_groups()[1])
    assert "criterion.hidden.maps.0.weight" in mine.state_dict()  # so that a training goes on where it stopped
    assert not any("hidden" in name for name in mine.model.state_dict())
    assert not any(one._forward_hooks for one in mine.model.modules())
    compression.save_model(tmp_path / "model", mine.model)
    assert not any("maps" in name for name in compression.loading.read(tmp_path / "model")[1])


def test_epochs_of_ctc_leave_the_map_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = module()
    mine.train()
    mine.options = replace(mine.options, ctc_epochs=1)
    monkeypatch.setattr(AcousticModule, "current_epoch", 0)
    mine._loss(batch())[2]["loss"].backward()
    assert (mine.criterion.hidden.maps[0].weight.grad == 0).all()  # several processes need one of every parameter


def test_a_block_that_is_left_out_gives_no_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = module(student=conformer(0, stochastic_depth=0.9999), pair=("layers.2", "blocks.1.norm"))
    mine.train()
    torch.manual_seed(0)
    result = loss(mine, monkeypatch)
    assert result["hidden"].item() == 0.0
    result["loss"].backward()
    assert (mine.criterion.hidden.maps[0].weight.grad == 0).all()


@pytest.mark.parametrize("pair, words", [
    (("layers.9", "layers.1"), "the teacher has no module 'layers.9'; near that are layers.2, layers.1, layers.0"),
    (("layers.2", "blocks"), "the student has no module 'blocks'"),
    (("layers.2", "layers.0"), r"'layers.0' of the student gives \(1, 4, 112\) for 56 frames"),
    (("layers.2", "layers"), "'layers' of the student gives no tensor"),
])
def test_modules_that_cannot_be_compared(pair: tuple[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        module(pair=pair)


def test_options(tmp_path: Path) -> None:
    compression.save_model(tmp_path / "t", tdnn(0))
    words = ["criterion=distillation", f"criterion.teacher={tmp_path / 't'}", "criterion.hidden=[[layers.2,layers.1]]"]
    built = criteria.build(**compose("train", words)["criterion"], vocab=VOCAB)
    built.begin(tdnn(1))
    assert built.listens == ("layers.1",)
    for wrong in ({"hidden": (("a",),)}, {"hidden_weight": -1.0}):
        with pytest.raises(UserError, match="hidden is a list of pairs"):
            replace(DistillationOptions(), **wrong)
    with pytest.raises(UserError, match="hidden layers follow one teacher, with teacher_input=same"):
        DistillationOptions(hidden=(("a", "b"),), teacher_input="clean")
