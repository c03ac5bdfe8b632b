"""Against numpy, tensorly's parafac, torch's own convolution and finite differences."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import tensorly
import torch
from tensorly.decomposition import parafac
from torch.nn import functional

from asrcompress.compression import structures
from asrcompress.compression.structures import CannotShrink, Structure
from asrcompress.compression.structures.low_rank.cp import Cp, als, balanced, orthogonal_terms, sensitivity, start
from asrcompress.errors import UserError

pytestmark = pytest.mark.usefixtures("numpy_backend")


def weight(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def tensor(factors: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return torch.einsum("or,ir,tr->oit", *factors)


def error(layer: Structure, w: torch.Tensor) -> float:
    return float((layer.dense() - w).detach().norm() / w.norm())


@pytest.mark.parametrize("shape", [(7, 5, 3), (3, 11, 4), (9, 2, 5)])
def test_the_orthogonal_terms_are_orthonormal_and_exact(shape: tuple[int, int, int]) -> None:
    w = weight(*shape)
    values, (a, b, c) = orthogonal_terms(w)
    torch.testing.assert_close(tensor((a * values, b, c)), w)
    terms = torch.einsum("or,ir,tr->roit", a, b, c).flatten(1)
    torch.testing.assert_close(terms @ terms.T, torch.eye(len(terms), dtype=torch.float64))
    rest = w - tensor((a[:, :4] * values[:4], b[:, :4], c[:, :4]))
    assert float(rest.norm()) == pytest.approx(float(values[4:].norm()))
    assert values[:4].norm() <= start(w, 4)[0][:4].norm()


def test_one_sweep_is_tensorlys() -> None:
    w, first = weight(8, 7, 3), (weight(8, 4, seed=1), weight(7, 4, seed=2), weight(3, 4, seed=3))
    theirs = parafac(w.numpy(), 4, n_iter_max=5, init=(np.ones(4), [f.numpy() for f in first]), tol=0)
    np.testing.assert_allclose(tensor(als(w, first, 5, 0)).numpy(), tensorly.cp_to_tensor(theirs), atol=1e-6)


def test_the_penalised_error_never_rises() -> None:
    w, ridge = weight(12, 10, 3), 0.3
    factors = balanced((weight(12, 9, seed=1), weight(10, 9, seed=2), weight(3, 9, seed=3)))
    before = math.inf
    for _ in range(20):
        factors = als(w, factors, 1, ridge)
        now = float((tensor(factors) - w).square().sum() + ridge * sum(f.square().sum() for f in factors))
        assert now <= before + 1e-9
        before = now


def test_a_sum_of_four_terms_is_found_again() -> None:
    w = tensor((weight(12, 4), weight(10, 4, seed=1), weight(5, 4, seed=2)))
    layer = structures.fit("cp", w, rank=4, ridge=0, sweeps=300)
    assert error(layer, w) < 1e-5


def test_more_sweeps_have_less_error_and_the_ridge_less_sensitivity() -> None:
    w = weight(20, 16, 3)
    errors = [error(structures.fit("cp", w, 0.25, sweeps=n), w) for n in (0, 5, 50)]
    assert errors[2] < errors[1] < errors[0]
    free, held = (structures.fit("cp", w, 0.5, sweeps=200, ridge=ridge) for ridge in (0.0, 0.05))
    loose, stable = (sensitivity(layer._factors()) / float(w.square().sum()) for layer in (free, held))
    assert stable < 2 and stable < loose / 2 and error(held, w) < 1.1 * error(free, w)


def test_a_tensor_without_a_best_approximation_does_not_diverge() -> None:
    """The derivative of a x b x c: rank 3, but the limit of tensors of rank 2 whose two terms grow and cancel."""
    e = torch.eye(2, dtype=torch.float64)
    w = sum(torch.einsum("o,i,t->oit", *e[list(which)]) for which in ((1, 0, 0), (0, 1, 0), (0, 0, 1)))
    begin = balanced([weight(2, 2, seed=n) for n in (1, 2, 3)])
    free, held = ([sensitivity(als(w, begin, sweeps, ridge)) for sweeps in (50, 400)] for ridge in (0, 0.01))
    assert free[1] > 2 * free[0] > 15
    assert held[1] < 1.01 * held[0] < 9
    assert float((tensor(als(w, begin, 400, 0.01)) - w).norm() / w.norm()) < 0.5


def test_sensitivity_is_the_sum_over_terms() -> None:
    a, b, c = (torch.from_numpy(np.random.default_rng(n).random((n, 3))) for n in (4, 5, 2))
    terms = np.einsum("or,ir,tr->roit", a, b, c)
    assert sensitivity((a, b, c)) == pytest.approx((terms**2).sum())


def test_the_factors_of_a_term_have_equal_norms() -> None:
    layer = structures.fit("cp", weight(14, 9, 3), 0.5)
    norms = torch.stack([factor.detach().norm(dim=0) for factor in layer._factors()])
    torch.testing.assert_close(norms, norms[:1].expand(3, -1))


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (1, 3, 3), (3, 2, 2)])
@pytest.mark.parametrize("taps", [1, 3])
def test_convolution_is_torchs_with_the_dense_kernel(taps: int, stride: int, padding: int, dilation: int) -> None:
    layer, x, bias = structures.fit("cp", weight(6, 4, taps), rank=3), weight(2, 4, 25, seed=1), weight(6, seed=2)
    expected = functional.conv1d(x, layer.dense(), bias, stride, padding, dilation)
    torch.testing.assert_close(layer.conv1d(x, stride, padding, dilation, bias), expected, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(layer.conv1d(x, stride, padding, dilation), expected - bias[:, None])


def test_a_matrix_is_its_truncated_svd() -> None:
    w, x, bias = weight(12, 9), weight(2, 3, 9, seed=1), weight(12, seed=2)
    layer = structures.fit("cp", w, rank=4)
    tail = np.linalg.svd(w.numpy(), compute_uv=False)[4:]
    assert error(layer, w) == pytest.approx(np.linalg.norm(tail) / float(w.norm()))
    torch.testing.assert_close(layer(x, bias), x @ layer.dense().T + bias)
    assert layer.taps is None and layer.num_parameters() == 4 * 21


def test_a_matrix_in_pieces_is_the_kernel_over_its_pieces() -> None:
    w, x, bias = weight(12, 24), weight(2, 5, 24, seed=1), weight(12, seed=2)
    layer = structures.fit("cp", w, rank=6, context_frames=3)
    kernel = np.stack(np.split(w.numpy(), 3, axis=1), axis=2)
    other = structures.fit("cp", torch.from_numpy(kernel), rank=6)
    torch.testing.assert_close(layer.dense(), torch.cat(other.dense().unbind(2), 1))
    torch.testing.assert_close(layer(x, bias), x @ layer.dense().T + bias)
    assert layer.num_parameters() == 6 * (12 + 3 + 8) and layer.macs(10) == 10 * 6 * (12 + 3 + 24)
    again = structures.build("cp", layer.spec()).double()
    again.load_state_dict(layer.state_dict())
    torch.testing.assert_close(again(x), layer(x))
    assert torch.autograd.gradcheck(lambda x, *_: layer(x), (x.requires_grad_(), *layer.parameters()))
    with pytest.raises(UserError, match="5 context_frames do not divide 24 inputs"):
        structures.init("cp", (12, 24), 0.5, context_frames=5)


def test_size_of_the_reference_layer() -> None:
    with torch.device("meta"):
        layer = Cp((1000, 1000, 2), 256)
    assert layer.num_parameters() == layer.macs(1) == 512_512
    assert layer.macs(10, stride=3) == 10 * (3 * 256_000 + 256 * 1002)
    assert Cp.min_parameters((1000, 1000, 2), Cp.Options()) == 2002
    assert Cp.min_parameters((1000, 2000), Cp.Options()) == 3000


@pytest.mark.parametrize("size", [0.5, 0.25, 0.125])
@pytest.mark.parametrize("shape", [(101, 61), (31, 37, 3), (64, 48, 1), (7, 64, 5)])
def test_size_is_kept_and_nearly_used(shape: tuple[int, ...], size: float) -> None:
    for layer in (structures.fit("cp", weight(*shape), size, sweeps=2), structures.init("cp", shape, size)):
        assert 0.8 * size <= layer.num_parameters() / math.prod(shape) <= size
        assert layer.num_parameters() % Cp.min_parameters(shape, Cp.Options()) == 0
    assert structures.fit("cp", weight(*shape), 0.5, rank_multiple=4, sweeps=0).rank % 4 == 0


def test_enough_terms_are_the_weight() -> None:
    for shape in ((7, 5), (5, 7), (4, 3, 3), (3, 9, 2), (6, 5, 1)):
        w = weight(*shape)
        torch.testing.assert_close(structures.fit("cp", w, rank=999, sweeps=0).dense().detach(), w)


def test_the_curve_is_the_start_and_an_upper_bound() -> None:
    w = weight(20, 16, 3)
    curve = Cp.rate_distortion(w, Cp.Options(rank_multiple=2), 0.25)
    assert curve.cost == 2 * 39 and (curve.gains.diff() <= 0).all()
    assert curve.energy == pytest.approx(float(w.square().sum()))
    for n in (1, 3):
        left = curve.energy - float(curve.gains[:n].sum())
        begun = Cp.fit(w, replace(curve.choose(n), sweeps=0))
        assert begun.num_parameters() == n * curve.cost
        if n == 3:  # `curve` looked at the side that is better near the size
            assert (error(begun, w) * float(w.norm())) ** 2 == pytest.approx(left)
        assert (error(Cp.fit(w, replace(curve.choose(n), ridge=0)), w) * float(w.norm())) ** 2 <= left + 1e-9
    matrix = Cp.rate_distortion(weight(12, 9), Cp.Options(), 0.5)
    np.testing.assert_allclose(matrix.gains, np.linalg.svd(weight(12, 9), compute_uv=False)[: len(matrix.gains)] ** 2)


def test_what_cannot_be_reached_says_the_smallest_and_wrong_options_are_user_errors() -> None:
    with pytest.raises(CannotShrink, match=r"cannot reach size 0.01; the smallest is 0.042, at rank 1"):
        structures.fit("cp", weight(60, 40), 0.01)
    for options in ({}, {"size": 0.5, "rank": 2}, {"rank": 0}, {"rank": 2, "ridge": -1}, {"rank": 2, "sweeps": -1}):
        with pytest.raises(UserError, match="cp"):
            structures.fit("cp", weight(6, 5, 3), **options)
    with pytest.raises(UserError, match="rank"):
        structures.build("cp", {"shape": [6, 5], "rank": 0})


def test_gradients() -> None:
    layer = structures.fit("cp", weight(4, 3, 2), rank=2)
    inputs = (weight(1, 3, 4, seed=1).requires_grad_(), *layer.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: (layer.conv1d(x, padding=1), layer.dense()), inputs)


def test_from_scratch_has_the_variance_of_a_dense_start_and_is_seeded() -> None:
    for shape in ((256, 512), (256, 128, 3), (256, 128, 1)):
        layer = structures.init("cp", shape, 0.5, seed=3)
        w = layer.dense().detach()
        assert float(w.std()) == pytest.approx(1 / math.sqrt(3 * math.prod(shape[1:])), rel=0.1)
        assert torch.equal(w, structures.init("cp", shape, 0.5, seed=3).dense())
        norms = [float(factor.detach().norm()) for factor in layer._factors()]
        assert max(norms) == pytest.approx(min(norms), rel=0.1)


def test_half_precision_and_degenerate_weights() -> None:
    layer = structures.fit("cp", weight(16, 12, 3).bfloat16(), 0.5)
    assert {p.dtype for p in layer.parameters()} == {torch.bfloat16}
    assert layer.conv1d(torch.randn(1, 12, 9, dtype=torch.bfloat16)).shape == (1, 16, 7)
    assert torch.equal(copy.deepcopy(layer).dense(), layer.dense())
    assert not structures.fit("cp", torch.zeros(6, 5, 3), 0.5).dense().any()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.float().conv1d(torch.randn(1, 12, 9)).dtype == torch.bfloat16
