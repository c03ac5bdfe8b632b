"""Against numpy: how far blocks are from what they are to share, and how hard they are pulled there."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from asrcompress import compression, models
from asrcompress.compression import Plan, modules, structures
from asrcompress.errors import UserError
from asrcompress.training.options import AverageOptions, TrainingOptions
from asrcompress.training.schedules.pull import Pull, PullOptions, distances
from tests.training.test_train import train

TRAINING = TrainingOptions(epochs=4, average=AverageOptions("last", 1))
STACK = "model.stack=[{dim: 8, taps: 5, stride: 2}, {dim: 12, taps: 3, stride: 2}, {dim: 12, taps: 3, repeat: 4}]"
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning")


def model(blocks: int = 4) -> models.AcousticModel:
    torch.manual_seed(0)
    return models.build({"model": "conformer", "features": 80, "vocab": 6, "dim": 16, "heads": 2, "hidden": 32,
                         "kernel": 3, "blocks": blocks, "front": 16})


def begun(net: nn.Module, span: int = 2, **options: float) -> tuple[Pull, Any]:
    schedule = Pull(Plan("tied", 0.8, options={"span": span}), PullOptions(**options), TRAINING)
    schedule.begin(net)
    logged: dict[str, Any] = {}
    module = SimpleNamespace(model=net, seconds=0.0, total_seconds=100.0, log_dict=logged.update, logged=logged)
    return schedule, module


def distance(net: nn.Module, schedule: Pull) -> float:
    """The mean over all layers of |W_l - S|^2 / |W_l|^2."""
    found = []
    for group in schedule.groups:
        weights = [modules.weight_at(net, path).detach().numpy() for path in group]
        mean = sum(weights) / len(weights)
        found += [float(((w - mean) ** 2).sum() / (w**2).sum()) for w in weights]
    return float(np.mean(found))


def test_groups_are_those_that_the_cut_ties() -> None:
    schedule, _ = begun(model(), span=4)
    assert len(schedule.groups) == 10 and all(len(group) == 4 for group in schedule.groups)
    assert ["blocks.0.ff1.up", "blocks.1.ff1.up", "blocks.2.ff1.up", "blocks.3.ff1.up"] in schedule.groups


def test_layers_of_which_none_can_be_tied_are_a_sentence() -> None:
    with pytest.raises(UserError, match="no two of the selected layers have the same shape"):
        Pull(Plan("tied", 1.0), PullOptions(), TRAINING).begin(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 6)))


def test_the_penalty_rises_to_its_weight_at_the_cut() -> None:
    net = model()
    schedule, module = begun(net, penalty=3.0, end=0.8)
    total = sum(len(group) for group in schedule.groups) * distance(net, schedule)
    assert total == pytest.approx(40 * 0.5, rel=0.1), "random matrices of two layers"
    for share in (0.0, 0.25, 1.0):
        module.seconds = share * 0.8 * 0.75 * 100.0  # three of four epochs come before the averaged one
        penalty = schedule.penalty(module)
        assert penalty is not None and float(penalty.detach()) == pytest.approx(share * 3.0 * total, rel=1e-4)
    assert module.logged["pull"] == pytest.approx(3.0)
    assert float(module.logged["distance of blocks"]) == pytest.approx(distance(net, schedule) ** 0.5, rel=1e-4)
    schedule.load_state_dict({"done": 1})
    assert schedule.penalty(module) is None


def test_its_gradient_is_that_of_finite_differences() -> None:
    net = nn.Sequential(*(nn.Linear(3, 2, bias=False).double() for _ in range(3)))
    weights = [layer.weight for layer in net]
    assert torch.autograd.gradcheck(lambda *_: distances(net, ["0", "1", "2"]), weights)
    assert float(distances(net, ["0", "0"]).detach().sum()) == 0


def test_it_pulls_blocks_together_and_the_cut_then_loses_little() -> None:
    after = {}
    for weight in (0.0, 1.0):
        net = model(2)
        schedule, module = begun(net, penalty=weight)
        before = distance(net, schedule)
        optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.0)
        for step in range(50):
            module.seconds = step
            optimizer.zero_grad()
            noise = sum((p * torch.randn_like(p)).sum() for p in net.parameters()) * 1e-3  # a task of no use
            (noise + schedule.penalty(module)).backward()
            optimizer.step()
        weights = {path: modules.weight_at(net, path).detach().clone() for group in schedule.groups for path in group}
        after[weight] = distance(net, schedule) / before
        module.parameter_groups = lambda net=net: [list(net.parameters())]
        schedule.cut(module, optimizer, 0.8)
        found = modules.structured(net)
        assert set(found) == set(weights)
        lost = [structures.relative_error(layer.dense().detach(), weights[path]) for path, layer in found.items()]
        assert max(lost) < 0.15 if weight else min(lost) > 0.4
    assert after[1.0] < 0.05 and after[0.0] > 0.8


def test_a_training_ends_with_tied_blocks(
        tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [STACK, "training.epochs=4", "training.average={how: last, count: 1}", "structure=tied", "size=0.9"]
    assert train(tiny_corpus, tmp_path, *options, "schedule=pull") == 0
    said = capsys.readouterr().out
    assert said.count("M parameters from") == 1
    assert "tied: dense, as it would not make them smaller: layers.0.conv, layers.1.conv, output" in said
    net = compression.load(tmp_path / "model.safetensors")
    found = modules.structured(net)
    assert set(found) == {f"layers.{i}.conv" for i in (2, 3, 4, 5)}
    assert len({id(layer.tied_pool()) for layer in found.values()}) == 2
    sizes = [epoch["parameters"] for epoch in json.loads((tmp_path / "train.json").read_text())["by_epoch"]]
    stored, dense = sum(p.numel() for p in net.parameters()), sizes[0]
    assert sizes[-1] == stored <= 0.9 * dense
