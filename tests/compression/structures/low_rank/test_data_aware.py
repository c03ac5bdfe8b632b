"""Truncation for given inputs, against the outputs on those inputs themselves, and against other truncations."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from asrcompress.compression import structures
from asrcompress.compression.structures import Structure
from asrcompress.compression.structures.fitting import output_energy
from asrcompress.compression.structures.low_rank import _data_aware
from asrcompress.compression.structures.low_rank._unfolding import spectrum
from asrcompress.compression.structures.low_rank.svd import Svd, SvdOptions
from asrcompress.errors import UserError


def inputs(frames: int, size: int, seed: int = 0) -> torch.Tensor:
    """Rows with strongly unequal and correlated directions."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((size, size)) * np.logspace(0, -2, size)[:, None]
    return torch.from_numpy(rng.standard_normal((frames, size)) @ mix)


def moments(x: torch.Tensor) -> torch.Tensor:
    return x.T @ x / len(x)


def error(weight: torch.Tensor, layer: Structure, x: torch.Tensor) -> float:
    """E|y - y'|^2 over the rows of x."""
    difference = (weight - layer.dense().detach()).flatten(1)
    return float((x @ difference.T).square().sum(1).mean())


@pytest.mark.parametrize("shape", [(20, 12), (12, 20), (10, 5, 3)])
def test_output_error_is_the_dropped_energy(shape: tuple[int, ...]) -> None:
    """With numpy's decomposition of W C^(1/2), C^(1/2) from the data by a triangular factor."""
    w, x = torch.randn(*shape, dtype=torch.float64), inputs(200, int(np.prod(shape[1:])))
    root = np.linalg.qr(x.numpy() / np.sqrt(len(x)), mode="r").T  # C = root root^T
    singular = np.linalg.svd(w.flatten(1).numpy() @ root, compute_uv=False)
    for rank in (1, 4, 7):
        layer = structures.fit("svd", w, rank=rank, unfolding="input", data_aware=True, moments=moments(x), ridge=0)
        assert error(w, layer, x) == pytest.approx((singular[rank:] ** 2).sum(), rel=1e-9)


def test_a_ridge_is_a_penalty_on_the_weights_own_error() -> None:
    w, x, ridge = torch.randn(20, 12, dtype=torch.float64), inputs(5, 12), 0.1  # fewer rows than inputs
    c = moments(x)
    layer = structures.fit("svd", w, rank=4, data_aware=True, moments=c, ridge=ridge)
    dropped = spectrum(w, "input", _data_aware.ridged(c, ridge))[4:].sum()
    penalty = ridge * float(c.diagonal().mean()) * float((w - layer.dense()).detach().square().sum())
    assert error(w, layer, x) + penalty == pytest.approx(float(dropped))


@pytest.mark.parametrize("unfolding", ["input", "output", "best"])
@pytest.mark.parametrize("seed", range(4))
def test_never_worse_than_the_plain_truncation(unfolding: str, seed: int) -> None:
    torch.manual_seed(seed)
    w, x = torch.randn(16, 8, 3, dtype=torch.float64), inputs(300, 24, seed)
    for rank in (1, 3, 6):
        aware = structures.fit("svd", w, rank=rank, unfolding=unfolding, data_aware=True, moments=moments(x), ridge=0)
        plain = structures.fit("svd", w, rank=rank, unfolding="input" if unfolding == "best" else unfolding)
        assert error(w, aware, x) <= error(w, plain, x) * (1 + 1e-9)


def test_white_inputs_give_the_plain_truncation_with_balanced_factors() -> None:
    w = torch.randn(16, 8, 3, dtype=torch.float64)
    for unfolding in ("input", "output"):
        options = {"rank": 4, "unfolding": unfolding}
        aware = structures.fit("svd", w, data_aware=True, moments=torch.eye(24), **options)
        plain = structures.fit("svd", w, **options)
        torch.testing.assert_close(aware.dense(), plain.dense())
        torch.testing.assert_close(aware.left.detach().norm(), aware.right.detach().norm())


def test_the_output_unfoldings_kernel_is_least_squares_on_the_projected_frames() -> None:
    """Against numpy's lstsq over a signal, and the layer's own convolution."""
    w = torch.randn(6, 5, 3, dtype=torch.float64)
    signal = inputs(120, 5).T[None]
    rows = functional.unfold(signal.unsqueeze(2), (1, 3))[0].T
    layer = structures.fit("svd", w, rank=2, unfolding="output", data_aware=True, moments=moments(rows), ridge=0)
    projected = torch.einsum("ri,nit->nrt", layer.right.detach(), signal)
    seen = functional.unfold(projected.unsqueeze(2), (1, 3))[0].T
    wanted = functional.conv1d(signal, w)[0].T
    kernel = np.linalg.lstsq(seen.numpy(), wanted.numpy(), rcond=None)[0].T
    np.testing.assert_allclose(layer.left.detach().flatten(1), kernel, atol=1e-9)
    lost = (layer.conv1d(signal)[0].T - wanted).detach().square().sum(1).mean()
    assert float(lost) == pytest.approx(error(w, layer, rows))


def test_full_rank_is_the_weight_and_dead_inputs_do_no_harm() -> None:
    w, x = torch.randn(8, 6, dtype=torch.float64), inputs(50, 6)
    x[:, 3] = 0
    for seen in (moments(x), torch.zeros(6, 6)):
        for ridge in (0, 0.01):
            full = structures.fit("svd", w, rank=6, data_aware=True, moments=seen, ridge=ridge)
            torch.testing.assert_close(full.dense().detach(), w)
    kernel = torch.randn(8, 2, 3)
    dead = structures.fit("svd", kernel, rank=1, unfolding="output", data_aware=True, moments=torch.zeros(6, 6))
    assert torch.isfinite(dead.dense()).all()


def test_energy_is_that_of_the_outputs() -> None:
    w, x = torch.randn(20, 16, dtype=torch.float64), inputs(200, 16)
    layer = structures.fit("svd", w, energy=0.95, data_aware=True, moments=moments(x), ridge=0)
    total = output_energy(w, moments(x))
    assert 1 - error(w, layer, x) / total >= 0.95
    fewer = structures.fit("svd", w, rank=layer.spec()["rank"] - 1, data_aware=True, moments=moments(x), ridge=0)
    assert 1 - error(w, fewer, x) / total < 0.95


def test_curve_and_bounds_count_output_energy() -> None:
    w, x = torch.randn(20, 6, 3, dtype=torch.float64), inputs(200, 18)
    asked, seen = SvdOptions(unfolding="input", data_aware=True, ridge=0.0), moments(x)
    curve = Svd.rate_distortion(w, asked, 0.5, seen)
    layer = Svd.fit(w, curve.choose(3), moments=seen)
    assert curve.energy - float(curve.gains[:3].sum()) == pytest.approx(error(w, layer, x))
    squares = spectrum(w, "input", moments(x))
    third = next(choice for choice in Svd.error_bounds(w, asked, seen) if choice.options.rank == 3)
    assert third.error == pytest.approx(float((squares[3] / squares[0]).sqrt()))
    assert third.num_parameters == layer.num_parameters()
    free = replace(asked, unfolding="best")
    best = Svd.rate_distortion(w, free, 0.5, seen).choose(1).unfolding
    assert best == Svd.fit(w, free, 0.5, moments=seen).unfolding


def test_half_precision_weights_keep_their_dtype() -> None:
    w, x = torch.randn(16, 12).bfloat16(), inputs(50, 12)
    layer = structures.fit("svd", w, rank=12, data_aware=True, moments=moments(x))
    assert layer.left.dtype == torch.bfloat16
    torch.testing.assert_close(layer.dense().detach().float(), w.float(), atol=0.15, rtol=0.05)


def test_missing_or_wrong_moments_are_user_errors() -> None:
    w = torch.randn(8, 6)
    for seen in (None, 3, torch.eye(5)):
        with pytest.raises(UserError, match="data_aware"):
            structures.fit("svd", w, rank=2, data_aware=True, moments=seen)
    with pytest.raises(UserError, match="ridge"):
        structures.fit("svd", w, rank=2, data_aware=True, moments=torch.eye(6), ridge=-1)
