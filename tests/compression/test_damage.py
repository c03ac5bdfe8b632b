"""Divergence and its second-order form, against numpy and closed forms."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from asrcompress import models
from asrcompress.compression.damage import Outputs, SecondOrder
from tests.compression.models_of_tests import classifier, seen_batches

CONFORMER = {"model": "conformer", "features": 80, "vocab": 24, "dim": 32, "heads": 2, "hidden": 64, "kernel": 3,
             "blocks": 1, "front": 16}


@pytest.fixture(scope="module")
def batches() -> list[torch.Tensor]:
    return seen_batches()


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float((np.exp(p) * (p - q)).sum(1).mean())


def test_divergence_is_the_kl_of_posteriors_inside_the_utterances(batches: list[torch.Tensor]) -> None:
    model, other = classifier(), classifier()
    with torch.no_grad():
        other[2].weight.mul_(1.1)
    p, q = ([m(x).detach().double().numpy() for x in batches] for m in (model, other))
    wanted = kl(np.concatenate(p), np.concatenate(q))
    assert Outputs(model, batches).divergence(other) == pytest.approx(wanted, rel=1e-4)
    few = kl(p[0], q[0])
    assert Outputs(model, batches).divergence(other, 1) == pytest.approx(few, rel=1e-4)
    ours, theirs = models.build(CONFORMER).eval(), models.build(CONFORMER).eval()
    batch = (torch.randn(2, 80, 80), torch.tensor([80, 44]))
    (p, lens), (q, _) = ours(*batch), theirs(*batch)
    inside = [row[:n].detach().double().numpy() for both in (p, q) for row, n in zip(both, lens, strict=True)]
    wanted = kl(np.concatenate(inside[:2]), np.concatenate(inside[2:]))
    assert Outputs(ours, [batch]).divergence(theirs) == pytest.approx(wanted, rel=1e-4)


def test_divergence_of_outputs_that_are_no_posteriors_is_half_the_squared_error_over_the_variance() -> None:
    x = torch.randn(50, 8)
    model, other = nn.Linear(8, 3), nn.Linear(8, 3)
    y, z = (m(x).detach().double().numpy() for m in (model, other))
    wanted = np.square(y - z).sum(1).mean() / (2 * y.var(0).sum())
    assert Outputs(model, [x]).divergence(other) == pytest.approx(wanted, rel=1e-4)


def test_of_a_linear_layer_the_second_order_form_is_exact_but_for_its_scale() -> None:
    torch.manual_seed(0)
    x, model = torch.randn(400, 12) * torch.linspace(0.2, 3, 12), nn.Sequential(nn.Linear(12, 5))
    outputs = Outputs(model, [x])
    form = SecondOrder(model, outputs)
    changes = [torch.randn(5, 12) * scale for scale in (0.01, 0.1, 0.3)] + [torch.eye(5, 12)]
    found = [form.of("0", change) for change in changes]
    gains = form.gains["0"].double().numpy()
    wanted = [float((gains * np.square(x.double().numpy() @ change.double().numpy().T).mean(0)).sum())
              for change in changes]
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_gains_are_the_fisher_information_of_the_outputs() -> None:
    torch.manual_seed(0)
    x = torch.randn(20_000, 4)
    model = nn.Sequential(nn.Linear(4, 6), nn.LogSoftmax(-1))
    found = SecondOrder(model, Outputs(model, [x])).gains["0"].numpy()
    p = model(x).detach().exp().double().numpy()
    fisher = (p * (1 - p)).mean(0)  # E[(1{y = i} - p_i)^2]
    np.testing.assert_allclose(found, fisher / fisher.mean(), rtol=0.05)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_part_that_runs_without_gradients_has_gains_of_one() -> None:
    class Frozen(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                heard = self[0](x)
            return self[1](heard)

    model, x = Frozen(nn.Linear(4, 6), nn.Linear(6, 3)), torch.randn(50, 4)
    form = SecondOrder(model, Outputs(model, [x]))
    assert form.gains["0"].tolist() == [1.0] and len(form.gains["1"]) == 3
    change = torch.randn(6, 4)
    wanted = np.square(x.double().numpy() @ change.double().numpy().T).mean(0).sum()
    assert form.of("0", change) == pytest.approx(float(wanted), rel=1e-4)


class Saying(nn.Sequential):
    """What a function says of the outputs of two layers."""

    def __init__(self, say: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__(nn.Linear(4, 6), nn.Linear(6, 3))
        self.say = say

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.say(super().forward(x))


@pytest.mark.parametrize("say, rows", [
    (lambda y: y.sum(-1), (50, 1)), (lambda y: y.mean(), (1, 1)), (lambda y: y.detach(), (50, 3)),
    (lambda y: y.argmax(-1, keepdim=True), (50, 1)), (lambda y: y[0], (3, 1)), (lambda y: 0 * y.sum(-1), (50, 1))])
def test_outputs_of_any_shape_and_without_gradients(say: Callable[[torch.Tensor], torch.Tensor],
                                                    rows: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model, x = Saying(say), torch.randn(50, 4)
    outputs = Outputs(model, [x, x[:20]])
    assert tuple(outputs.rows[0].shape) == rows and not outputs.posteriors
    form = SecondOrder(model, outputs)
    assert np.isfinite(form.of("0", torch.randn(6, 4))) and outputs.divergence(model) == 0


def test_a_layer_that_sees_one_example_has_gains_for_its_rows() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    assert SecondOrder(model, Outputs(model, list(torch.randn(50, 4)))).gains["0"].shape == (6,)
