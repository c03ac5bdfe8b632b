"""Sensitivity: a planted fragile layer comes first, the figures by numpy, and weights that a budget is better with."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from asrcompress.compression import Plan, compress, sensitivity
from asrcompress.errors import UserError


class Parts(nn.Module):
    """Layers that read the same input, each with a weight of its own in the output."""

    def __init__(self, scales: tuple[float, ...]) -> None:
        super().__init__()
        self.scales = scales
        self.blocks = nn.ModuleList(nn.ModuleDict({"a": nn.Linear(24, 20), "b": nn.Linear(24, 20)}) for _ in range(2))
        self.tiny = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 24) -> (N, 80)."""
        parts = [block[name](x) for block in self.blocks for name in "ab"]
        return torch.cat([part * scale for part, scale in zip(parts, self.scales, strict=True)], 1)


def parts(*scales: float) -> tuple[Parts, Tensor]:
    torch.manual_seed(0)
    model = Parts(scales).eval()
    return model, torch.randn(4000, 24)


def squared(model: Parts, x: Tensor):  # type: ignore[no-untyped-def]
    """The loss: squared distance to the outputs of the model as it is."""
    wanted = model(x).detach()
    return lambda other: float((other(x).detach() - wanted).square().sum(1).mean())


def test_a_fragile_layer_comes_first_and_the_figures_are_those_of_numpy() -> None:
    model, x = parts(1, 1, 1, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows = sensitivity.measure(model, squared(model, x), size=0.5)
    assert [row.name for row in rows] == ["blocks.*.b", "blocks.*.a"], "no SVD makes tiny as small as that"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    first, errors, damage = rows[0], [], 0.0
    for scale, block in ((1, 0), (4, 1)):
        weight = model.blocks[block]["b"].weight.detach().double().numpy()
        u, s, vh = np.linalg.svd(weight, full_matrices=False)
        rank = int(0.5 * weight.size / sum(weight.shape))
        cut = (u[:, :rank] * s[:rank]) @ vh[:rank]
        errors.append(((weight - cut) ** 2).sum() / (weight**2).sum())
        damage += scale**2 * np.square(x.double().numpy() @ (weight - cut).T).sum(1).mean()
    assert (first.layers, first.parameters, first.saved) == (2, 960, 960 - 2 * rank * 44)
    assert first.error == pytest.approx(np.sqrt(np.mean(errors)), rel=1e-4)
    assert first.damage == pytest.approx(damage, rel=1e-3)
    assert first.rate == pytest.approx(1e6 * first.damage / first.saved)
    found = sensitivity.weights(rows)
    costs = [row.damage / (2 * row.error**2) for row in rows]
    assert found["blocks.*.b"] / found["blocks.*.a"] == pytest.approx(costs[0] / costs[1], rel=0.01)
    assert np.mean(list(found.values())) == pytest.approx(1, rel=0.01), "of equally large groups"


def test_a_budget_with_these_weights_loses_less() -> None:
    model, x = parts(1, 3, 0.5, 6)
    loss = squared(model, x)
    rows = sensitivity.measure(model, loss, 0.5, ["blocks.0.a", "blocks.0.b", "blocks.1.a", "blocks.1.b"])
    assert [row.name for row in rows] == ["blocks.1.b", "blocks.0.b", "blocks.0.a", "blocks.1.a"]
    lost = [loss(compress(model, Plan("svd", 0.5, include=("blocks.*",), budget_options={"weights": given}))[0])
            for given in (None, sensitivity.weights(rows))]
    assert lost[1] < 0.8 * lost[0]


def test_groups_that_are_named_and_more_exact_globs_that_count() -> None:
    model, x = parts(1, 1, 1, 4)
    rows = sensitivity.measure(model, squared(model, x), 0.5, ["*.a,blocks.0.b", "blocks.1.b"])
    assert [(row.name, row.layers) for row in rows] == [("blocks.1.b", 1), ("*.a,blocks.0.b", 3)]
    assert list(sensitivity.weights(rows)) == ["*.a", "blocks.1.b", "blocks.0.b"]


def test_a_part_that_costs_nothing_has_the_least_weight() -> None:
    model, x = parts(0, 1, 0, 1)
    found = sensitivity.weights(sensitivity.measure(model, squared(model, x), 0.5))
    assert found == {"blocks.*.a": sensitivity.LEAST, "blocks.*.b": 2}


def test_quantized_models_and_kernels_in_another_memory_layout() -> None:
    model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(16, 8)).to(memory_format=torch.channels_last)
    x = torch.randn(50, 8, 3, 3)
    small, _ = compress(model.eval(), Plan(quantization="int8"))
    wanted = small(x).detach()
    rows = sensitivity.measure(small, lambda other: float((other(x).detach() - wanted).square().mean()), 0.5)
    assert len(rows) == 2 and all(row.damage > 1e-3 for row in rows)


def test_mistakes_are_sentences() -> None:
    model, x = parts(1, 1, 1, 1)
    loss = squared(model, x)
    for arguments, sentence in (((loss, 0.5, ["moon"]), "no layer is called moon; the layers are blocks.0.a, "),
                                ((loss, 1.0), "size is 1;"), ((loss, 0.0), "size is 0;"),
                                ((loss, 1e-3), "no layer that could be cut to this size"),
                                ((lambda model: float("nan"),), "the loss of the whole model is nan")):
        with pytest.raises(UserError, match=sentence):
            sensitivity.measure(model, *arguments)
    with pytest.raises(UserError, match="no part of the model costs anything"):
        sensitivity.weights(sensitivity.measure(model, lambda model: 1.0, 0.5))
