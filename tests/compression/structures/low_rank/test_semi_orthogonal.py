"""Against numpy: the published update, its map of the singular values, and what the factors are."""

import math

import numpy as np
import pytest
import torch

from asrcompress.compression import structures
from asrcompress.compression.structures.low_rank.semi_orthogonal import SemiOrthogonal, constrain, orthonormal_rows
from asrcompress.models.tdnn import Layer


def factor(rows: int, columns: int, values: np.ndarray, seed: int = 0) -> np.ndarray:
    """A matrix with these singular values and random singular vectors."""
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.standard_normal((n, len(values))))[0] for n in (rows, columns))
    return left * values @ right.T


def step(matrix: np.ndarray) -> np.ndarray:
    weight = torch.from_numpy(matrix.copy())
    constrain(weight)
    return weight.numpy()


def error(matrix: np.ndarray) -> float:
    """|| P / s^2 - I || with the floating s^2 = tr(P P^T) / tr(P)."""
    p = matrix @ matrix.T
    return float(np.linalg.norm(p / (np.trace(p @ p.T) / np.trace(p)) - np.eye(len(p))))


@pytest.mark.parametrize("spread", [0.02, 0.1, 0.5, 1.0])
def test_step_is_the_published_update(spread: float) -> None:
    m = factor(20, 50, np.exp(spread * np.random.default_rng(1).standard_normal(20)))
    p = m @ m.T
    s2 = np.trace(p @ p.T) / np.trace(p)
    q = np.trace(p @ p.T) * 20 / np.trace(p) ** 2
    nu = 1 / 8 * (1 / 4 if q > 1.1 else 1 / 2 if q > 1.02 else 1)
    np.testing.assert_allclose(step(m), m - 4 * nu / s2 * (p - s2 * np.eye(20)) @ m, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_floating_scale_does_not_fight_the_scale(scale: float) -> None:
    m = scale * factor(12, 30, np.linspace(0.5, 1.5, 12))
    change = step(m) - m
    assert np.abs(change).max() > 1e-3 * scale
    assert abs(np.trace(m @ change.T)) < 1e-12 * np.trace(m @ m.T)  # golden test 3


def test_singular_values_follow_the_cubic() -> None:
    values = np.linspace(0.97, 1.04, 20)  # near enough that nu is the full 1/8
    s = np.sqrt((values**4).sum() / (values**2).sum())
    unit = values / s
    found = np.linalg.svd(step(factor(20, 40, values)), compute_uv=False)
    np.testing.assert_allclose(found, np.sort(s * (1.5 * unit - 0.5 * unit**3))[::-1], atol=1e-12)


def test_convergence_is_quadratic_from_a_random_start() -> None:
    m = np.random.default_rng(0).standard_normal((96, 1536)) / np.sqrt(1536)
    errors = []
    for _ in range(12):
        errors.append(error(m))
        m = step(m)
    # methods.md, 2b, for another seed: small steps while the singular values are spread, then full ones.
    np.testing.assert_allclose(np.log(errors[:6]), np.log([2.4, 1.3, 0.16, 4.8e-3, 7.7e-6, 3e-11]), atol=1.5)
    # Near the solution a singular value 1 + d becomes 1 - 1.5 d^2, and with it an entry e of the error 0.75 e^2.
    assert all(after < 0.76 * before**2 for before, after in zip(errors[2:4], errors[3:5], strict=True))
    values = np.linalg.svd(m, compute_uv=False)
    assert values.max() / values.min() - 1 < 1e-9


def test_kernels_and_tall_matrices_are_changed_in_place() -> None:
    kernel = torch.randn(6, 10, 2)
    expected = step(kernel.reshape(6, 20).numpy())
    pointer = kernel.data_ptr()
    constrain(kernel)
    assert kernel.data_ptr() == pointer
    np.testing.assert_allclose(kernel.reshape(6, 20).numpy(), expected, atol=1e-6)
    tall = torch.randn(20, 6, requires_grad=True)
    expected = step(tall.detach().T.contiguous().numpy()).T
    constrain(tall)
    np.testing.assert_allclose(tall.detach().numpy(), expected, atol=1e-6)
    zero = torch.zeros(3, 5)
    constrain(zero)
    assert (zero == 0).all()


def test_a_kernel_in_strided_memory_is_changed_too() -> None:
    kernel = torch.randn(6, 2, 10).transpose(1, 2)
    expected = step(kernel.reshape(6, 20).numpy())
    constrain(kernel)
    np.testing.assert_allclose(kernel.reshape(6, 20).numpy(), expected, atol=1e-6)


def test_half_precision_is_computed_in_float32() -> None:
    half = torch.randn(8, 20).bfloat16()
    expected = step(half.float().numpy())
    constrain(half)
    np.testing.assert_allclose(half.float().numpy(), expected, rtol=1e-2, atol=1e-2)


def gram(layer: structures.Structure) -> torch.Tensor:
    right = layer.right.detach().flatten(1)
    return right @ right.T


@pytest.mark.parametrize("unfolding", ["input", "output"])
@pytest.mark.parametrize("shape", [(14, 9, 3), (9, 14)])
def test_fit_is_the_truncated_svd_in_other_factors(shape: tuple[int, ...], unfolding: str) -> None:
    weight = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    layer = structures.fit("semi_orthogonal", weight, rank=5, unfolding=unfolding)
    svd = structures.fit("svd", weight, rank=5, unfolding=unfolding)
    assert isinstance(layer, SemiOrthogonal)
    assert layer.num_parameters() == svd.num_parameters() and layer.macs(7) == svd.macs(7)
    torch.testing.assert_close(layer.dense(), svd.dense())
    torch.testing.assert_close(gram(layer), torch.eye(5, dtype=torch.float64))


def test_a_weight_of_low_rank_has_orthonormal_rows_all_the_same() -> None:
    weight = torch.outer(torch.arange(8.0), torch.arange(12.0))
    layer = structures.fit("semi_orthogonal", weight, rank=4)
    torch.testing.assert_close(gram(layer), torch.eye(4))
    torch.testing.assert_close(layer.dense(), weight, atol=1e-4, rtol=1e-4)


def test_rows_and_mix_give_the_matrix_back() -> None:
    matrix = torch.randn(4, 9, dtype=torch.float64)
    mix, rows = orthonormal_rows(matrix)
    torch.testing.assert_close(mix @ rows, matrix)
    torch.testing.assert_close(rows @ rows.T, torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(256, 512), (128, 64, 3), (64, 256, 3)])
@pytest.mark.parametrize("unfolding", ["input", "output"])
def test_from_scratch_has_orthonormal_rows_and_the_variance_of_a_dense_start(shape: tuple, unfolding: str) -> None:
    layer = structures.init("semi_orthogonal", shape, 0.25, seed=3, unfolding=unfolding)
    torch.testing.assert_close(gram(layer), torch.eye(layer.rank), atol=1e-5, rtol=0)
    assert float(layer.dense().detach().std()) == pytest.approx(1 / math.sqrt(3 * math.prod(shape[1:])), rel=0.05)
    assert torch.equal(layer.right, structures.init("semi_orthogonal", shape, 0.25, seed=3, unfolding=unfolding).right)


def test_rows_that_scale_leave_the_constraint() -> None:
    layer, scale = structures.fit("semi_orthogonal", torch.randn(6, 5, 3), rank=2), torch.rand(6)
    expected = layer.dense().detach() * scale[:, None, None]
    assert layer.scale_rows(scale)
    torch.testing.assert_close(layer.dense().detach(), expected)
    torch.testing.assert_close(gram(layer), torch.eye(2))


@pytest.mark.parametrize(("dim", "bottleneck", "tokens", "published"), [
    (768, 96, 2336, 5_210_944), (768, 96, 2328, 5_207_856), (1024, 128, 2854, 8_354_636)])
def test_factored_layers_have_the_parameters_that_kaldi_prints(
        dim: int, bottleneck: int, tokens: int, published: int) -> None:
    """Golden test 4: TDNN-F layers with strides 1,1,1,0,3x8, a spliced input of 220, two heads through 192."""
    total = 0
    for stride in (1, 1, 1, 0, *8 * [3]):
        layer = Layer(dim, dim, taps=3 if stride else 1, dilation=max(1, stride), bottleneck=bottleneck, folded=True)
        total += sum(parameter.numel() for parameter in layer.parameters())
    heads = 2 * ((192 * dim + dim) + dim * 192 + 193 * tokens)
    assert 220 * dim + dim + total + dim * 192 + heads == published
