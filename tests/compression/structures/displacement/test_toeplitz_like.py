"""Against scipy's matrices, explicit shifts, numpy's ranks and least squares."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import circulant, toeplitz
from torch.nn import functional

from asrcompress.compression import structures
from asrcompress.compression.structures import CannotShrink
from asrcompress.compression.structures.displacement.toeplitz_like import (
    ToeplitzLike,
    cauchy,
    displacement,
    displacement_svd,
    generated,
    least_squares,
    odd_fft,
    odd_ifft,
    undo_displacement,
)
from asrcompress.errors import UserError


def weight(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def shift(b: int, f: float) -> np.ndarray:
    """Z_f: the down-shift with f in the upper right corner."""
    matrix = np.eye(b, k=-1)
    matrix[0, -1] = f
    return matrix


def f_circulant(v: np.ndarray, f: float) -> np.ndarray:
    """Z_f(v) = [v, Z_f v, Z_f^2 v, ...]."""
    return np.stack([np.linalg.matrix_power(shift(len(v), f), k) @ v for k in range(len(v))], 1)


def random_toeplitz(b: int, seed: int) -> np.ndarray:
    column, row = np.random.default_rng(seed).standard_normal((2, b))
    return toeplitz(column, row)


def rank(matrix: np.ndarray) -> int:
    return int(np.linalg.matrix_rank(matrix, tol=1e-8 * np.linalg.norm(matrix)))


def test_the_shift_of_1_makes_circulants() -> None:
    v = weight(6).numpy()
    np.testing.assert_allclose(f_circulant(v, 1), circulant(v))


def test_displacement_of_the_sum_is_twice_the_generators_product() -> None:
    b, r = 8, 3
    g, h = weight(r, b), weight(r, b, seed=1)
    matrix = sum(f_circulant(g[i].numpy(), 1) @ f_circulant(h[i].numpy(), -1) for i in range(r))
    np.testing.assert_allclose(generated(g, h).numpy(), matrix, atol=1e-12)
    moved = shift(b, 1) @ matrix - matrix @ shift(b, -1)
    np.testing.assert_allclose(displacement(torch.from_numpy(matrix)).numpy(), moved, atol=1e-12)
    np.testing.assert_allclose(moved, 2 * g.numpy().T @ h.numpy()[:, ::-1], atol=1e-12)


def test_sylvesters_identity_has_the_constant_one_half() -> None:
    matrix = weight(8, 8)
    torch.testing.assert_close(undo_displacement(displacement(matrix)), matrix)
    u, s, vh = np.linalg.svd(displacement(matrix).numpy())
    g, h = (u * s).T, vh  # Z_1 M - M Z_-1 = G H^T
    back = sum(f_circulant(g[i], 1) @ f_circulant(h[i][::-1], -1) for i in range(8)) / 2
    np.testing.assert_allclose(back, matrix.numpy(), atol=1e-12)


def test_steins_krylov_decomposition_has_the_constant_one_half_and_the_reference_codes_2() -> None:
    """M - A M B = G H^T is M = 1/2 sum K(A, g) K(B^T, h)^T, for A = Z_1, B = Z_-1; structured-nets' sum has
    M' - Z_1 M' Z_-1^T = 2 G H^T."""
    b = 8
    a, g, h = shift(b, 1), *weight(2, b).numpy()

    def krylov(matrix: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.stack([np.linalg.matrix_power(matrix, k) @ v for k in range(b)], 1)

    m = krylov(a, g) @ krylov(shift(b, -1).T, h).T / 2
    np.testing.assert_allclose(m - a @ m @ shift(b, -1), np.outer(g, h), atol=1e-12)
    theirs = krylov(a, g) @ krylov(shift(b, -1), h).T
    np.testing.assert_allclose(theirs - a @ theirs @ shift(b, -1).T, 2 * np.outer(g, h), atol=1e-12)


def test_displacement_ranks_of_toeplitz_matrices_and_their_products() -> None:
    b = 12
    one, other = random_toeplitz(b, 0), random_toeplitz(b, 1)
    matrices = (one, np.linalg.inv(one), one @ other, one @ np.linalg.inv(other))
    z0, z1, zm = shift(b, 0), shift(b, 1), shift(b, -1)
    for matrix, expected in zip(matrices, (2, 2, 4, 3), strict=True):
        assert rank(displacement(torch.from_numpy(matrix)).numpy()) == expected
        assert rank(matrix - z0 @ matrix @ z0.T) == expected
        assert rank(matrix - z1 @ matrix @ zm.T) == expected
        layer = structures.fit("toeplitz_like", torch.from_numpy(matrix), rank=expected)
        np.testing.assert_allclose(layer.dense().detach().numpy(), matrix, atol=1e-7 * np.linalg.norm(matrix))
    assert rank(one - z1 @ one @ zm) == b  # the convention in which Toeplitz matrices are not structured


def test_odd_fft_diagonalises_skew_circulants() -> None:
    v, x = weight(10), weight(10, seed=1)
    odd = np.exp(-1j * np.pi * np.outer(2 * np.arange(0, 10, 2) + 1, np.arange(10)) / 10)
    np.testing.assert_allclose(odd_fft(x).numpy(), odd @ x.numpy(), atol=1e-12)
    torch.testing.assert_close(odd_ifft(odd_fft(x)), x)
    np.testing.assert_allclose(odd_ifft(odd_fft(v) * odd_fft(x)).numpy(), f_circulant(v.numpy(), -1) @ x.numpy(),
                               atol=1e-12)


def test_both_transforms_turn_a_member_into_a_cauchy_matrix_times_a_low_rank_one() -> None:
    b = 10
    g, h = weight(2, b), weight(2, b, seed=1)
    k = np.arange(b)
    fourier = np.exp(-2j * np.pi * np.outer(k, k) / b)
    right = np.linalg.inv(fourier @ np.diag(np.exp(-1j * np.pi * k / b)))
    left = (fourier @ g.numpy().T) @ (fourier @ np.diag(np.exp(-1j * np.pi * k / b)) @ h.numpy().T).T
    kernel = cauchy(b, torch.zeros((), dtype=torch.complex128)).numpy()
    np.testing.assert_allclose(fourier @ generated(g, h).numpy() @ right, kernel * left, atol=1e-11)


def test_half_a_sweep_is_least_squares_in_g() -> None:
    b, r = 6, 2
    target, (g, h) = weight(1, b, b), weight(2, 1, r, b, seed=1)
    basis = np.stack([(circulant(np.eye(b)[k]) @ f_circulant(h[0, i].numpy(), -1)).ravel()
                      for i in range(r) for k in range(b)], 1)
    best = np.linalg.lstsq(basis, target.numpy().ravel(), rcond=None)
    residuals = [np.linalg.norm((generated(*least_squares(target, g, h, n)) - target).numpy()) ** 2 for n in (1, 2, 5)]
    assert best[1][0] >= residuals[0] >= residuals[1] >= residuals[2]


def test_fit_is_better_than_the_truncated_displacement_which_is_worse_than_nothing() -> None:
    w = weight(32, 32)
    truncated = structures.fit("toeplitz_like", w, rank=2, sweeps=0).dense().detach()
    assert float((truncated - w).norm() / w.norm()) > 1
    fitted = structures.fit("toeplitz_like", w, rank=2, sweeps=10).dense().detach()
    assert float((fitted - w).norm() / w.norm()) < 0.95
    g, h = displacement_svd(w[None], 32)
    torch.testing.assert_close(generated(g, h)[0], w)
    assert not structures.fit("toeplitz_like", torch.zeros(6, 6), rank=2).dense().detach().any()


@pytest.mark.parametrize(("shape", "r", "block"), [((8, 8), 3, 8), ((7, 13), 2, 8), ((12, 20, 3), 2, 4),
                                                   ((9, 5, 2), 1, 10)])
@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 3, 2)])
def test_the_product_is_the_matrix(shape: tuple[int, ...], r: int, block: int, stride: int, padding: int,
                                   dilation: int) -> None:
    layer, x = structures.init("toeplitz_like", shape, rank=r, block=block).double(), weight(2, shape[1], 25, seed=1)
    kernel = layer.dense() if len(shape) == 3 else layer.dense().unsqueeze(2)
    padded = functional.pad(x.transpose(1, 2), (0, 0, padding, padding))
    expected = functional.conv1d(x, kernel, None, stride, padding, dilation).transpose(1, 2)
    torch.testing.assert_close(layer.product(padded, stride, dilation), expected)


def test_low_ranks_and_few_frames_go_through_the_fft() -> None:
    shape = (1024, 1024)
    low, high = (structures.init("toeplitz_like", shape, rank=r).eval() for r in (1, 200))
    x = torch.randn(2, 1024)
    with torch.no_grad():
        assert low.fast(2) and not high.fast(256)
        assert low.macs(1) < math.prod(shape) and high.macs(256) == 256 * math.prod(shape)
        y = low(x)
        assert list(low._kept) == ["_spectra_of_generators"]
        torch.testing.assert_close(y, x @ low.dense().T, rtol=1e-4, atol=1e-5)


def test_size_is_kept_and_nearly_used() -> None:
    for shape in ((96, 160), (64, 96, 3), (101, 103)):
        for size in (0.5, 0.25, 0.125):
            layer = structures.init("toeplitz_like", shape, size)
            assert 0.75 * size <= layer.num_parameters() / math.prod(shape) <= size


def test_the_smallest_is_rank_1_and_can_be_reached() -> None:
    assert ToeplitzLike.min_parameters((60, 40), ToeplitzLike.Options()) == 120  # a block of 60; two of 40: 160
    assert ToeplitzLike.min_parameters((60, 40, 3), ToeplitzLike.Options(rank=2, block=20)) == 6 * 3 * 2 * 2 * 20
    for shape in ((60, 40), (37, 41, 3), (12, 9)):
        fewest = ToeplitzLike.min_parameters(shape, ToeplitzLike.Options())
        assert structures.fit("toeplitz_like", weight(*shape), fewest / math.prod(shape)).num_parameters() == fewest
        with pytest.raises(CannotShrink, match="at rank 1 in blocks of"):
            structures.fit("toeplitz_like", weight(*shape), (fewest - 1) / math.prod(shape))


def test_wrong_options_are_user_errors() -> None:
    for options in ({}, {"size": 0.5, "rank": 2}, {"rank": 0}, {"rank": 9}, {"rank": 1, "block": 3},
                    {"rank": 1, "block": 12}):
        with pytest.raises(UserError, match="toeplitz_like"):
            structures.fit("toeplitz_like", weight(8, 8), **options)


def test_gradients() -> None:
    layer, x = structures.init("toeplitz_like", (6, 5, 2), rank=2, block=4).double(), weight(1, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda *_: (layer.product(x, 1, 1), layer.dense()), (x, layer.g, layer.h))


def test_from_scratch_has_the_variance_of_a_dense_start_and_is_seeded() -> None:
    for shape in ((128, 256), (64, 64, 3)):
        w = structures.init("toeplitz_like", shape, 0.25, seed=3).dense().detach()
        assert float(w.std()) == pytest.approx(1 / math.sqrt(3 * math.prod(shape[1:])), rel=0.1)
        assert torch.equal(w, structures.init("toeplitz_like", shape, 0.25, seed=3).dense())


def test_half_precision_and_autocast() -> None:
    w = structures.init("toeplitz_like", (64, 64), rank=2).dense().detach()
    layer, x = structures.fit("toeplitz_like", w.bfloat16(), rank=2), torch.randn(8, 64)
    assert layer.g.dtype == torch.bfloat16 and layer.dense().dtype == torch.bfloat16
    expected = x @ w.T
    for y in (layer(x.bfloat16()), layer.product(x.bfloat16()[None], 1, 1)[0]):
        torch.testing.assert_close(y.detach().float(), expected, atol=0.05, rtol=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        for y in (layer.float()(x), layer.product(x[None], 1, 1)[0]):
            torch.testing.assert_close(y.detach().float(), expected, atol=0.05, rtol=0.05)
