"""Against explicit matrices in numpy, sums of powers, and finite differences."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.linalg
import torch

from asrcompress.compression import structures
from asrcompress.compression.structures import CannotShrink
from asrcompress.compression.structures.displacement.ldr import (
    Ldr,
    Stein,
    contracted,
    stein_by_shifts,
    stein_by_squares,
    tridiagonal,
)
from asrcompress.errors import UserError

Matrix = npt.NDArray[np.float64]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def member(shape: tuple[int, ...], rank: int, operator: str, block: int | None = None) -> Ldr:
    """One with random numbers everywhere."""
    layer = Ldr(shape, rank, operator, block).double()
    with torch.no_grad():
        for seed, numbers in enumerate(layer.parameters()):
            numbers.copy_(random(*numbers.shape, seed=seed) * 0.5)
    return layer


def explicit(numbers: torch.Tensor, operator: str, side: int) -> Matrix:
    """The operator of one tile, built diagonal by diagonal, rows scaled down where they sum to more than 1."""
    n = numbers.detach().numpy()
    if operator == "subdiagonal":
        a = np.diag(n, -1)
    else:
        a = np.diag(n[: side - 1], -1) + np.diag(n[side - 1 : 2 * side - 1]) + np.diag(n[2 * side - 1 :], 1)
    return a / np.maximum(1, np.abs(a).sum(1, keepdims=True))


def krylov(a: Matrix, v: Matrix, terms: int) -> Matrix:
    return np.stack([np.linalg.matrix_power(a, t) @ v for t in range(terms)], 1)


@pytest.mark.parametrize("operator", ["subdiagonal", "tridiagonal"])
@pytest.mark.parametrize("shape", [(8, 8), (7, 9), (11, 6), (5, 1)])
def test_a_tile_solves_steins_equation_and_is_its_krylov_decomposition(operator: str, shape: tuple[int, int]) -> None:
    layer = member(shape, 1 if 1 in shape else 3, operator, block=max(shape))
    m = layer.dense().detach().numpy()
    a, bt = explicit(layer.down[0, 0], operator, shape[0]), explicit(layer.across[0, 0], operator, shape[1])
    g, h = (factor[0, 0].detach().numpy() for factor in (layer.left, layer.right))
    terms = 2 ** math.ceil(math.log2(max(shape)))
    sums = sum(krylov(a, g[:, k], terms) @ krylov(bt, h[:, k], terms).T for k in range(layer.rank))
    np.testing.assert_allclose(m, sums, atol=1e-13)
    last = np.linalg.matrix_power(a, terms) @ g @ h.T @ np.linalg.matrix_power(bt.T, terms)
    np.testing.assert_allclose(m - a @ m @ bt.T, g @ h.T - last, atol=1e-13)
    if operator == "subdiagonal":
        assert not last.any()


def test_cyclic_shifts_have_the_constant_one_half() -> None:
    """A = Z_1 and B = Z_-1 have A^n = I, B^n = -I: the Krylov sum M has M - A M B = (1 - ab) G H^T = 2 G H^T."""
    n = 8
    z1, skew = np.roll(np.eye(n), 1, 0), np.roll(np.eye(n), 1, 0)
    skew[0, -1] = -1
    p = random(n, 2) @ random(2, n, seed=1)
    for b in (skew, skew.T):
        m = stein_by_squares(p, torch.from_numpy(z1), torch.from_numpy(b)).numpy()
        np.testing.assert_allclose(0.5 * (m - z1 @ m @ b), p, atol=1e-13)


def test_displacement_ranks_of_toeplitz_matrices_and_their_exact_rebuilding() -> None:
    n, random_state = 12, np.random.default_rng(0)
    t1, t2 = (scipy.linalg.toeplitz(*random_state.standard_normal((2, n))) for _ in range(2))
    shift = np.eye(n, k=-1)
    ones = torch.ones(n - 1, dtype=torch.float64)
    inverse = np.linalg.inv(t2)
    for matrix, rank in ((t1, 2), (np.linalg.inv(t1), 2), (t1 @ t2, 4), (t1 @ inverse, 3)):
        p = matrix - shift @ matrix @ shift.T
        assert np.linalg.matrix_rank(p, tol=1e-8 * np.linalg.norm(p)) == rank
        rebuilt = stein_by_shifts(torch.from_numpy(p), ones, ones).numpy()
        np.testing.assert_allclose(rebuilt, matrix, atol=1e-10 * np.linalg.norm(matrix))


def test_both_ways_of_doubling_agree() -> None:
    down, across, p = random(2, 8) / 2, random(2, 12, seed=1) / 2, random(2, 9, 13, seed=2)
    a, bt = torch.diag_embed(down, -1), torch.diag_embed(across, -1)
    torch.testing.assert_close(stein_by_shifts(p, down, across), stein_by_squares(p, a, bt.mT))


@pytest.mark.parametrize("shape", [(6, 6), (5, 8), (1, 4), (7, 2)])
def test_gradient_of_the_equation(shape: tuple[int, int]) -> None:
    inputs = (random(2, *shape), random(2, shape[0] - 1, seed=1), random(2, shape[1] - 1, seed=2))
    assert torch.autograd.gradcheck(Stein.apply, [i.requires_grad_() for i in inputs])


@pytest.mark.parametrize("operator", ["subdiagonal", "tridiagonal"])
def test_gradients(operator: str) -> None:
    layer = member((5, 4, 2), 2, operator)
    assert torch.autograd.gradcheck(lambda *_: layer.dense(), tuple(layer.parameters()))


@pytest.mark.parametrize("shape", [(24, 16), (13, 31), (6, 5, 3), (31, 3, 2)])
def test_tiles_stand_where_they_belong(shape: tuple[int, ...]) -> None:
    """With operators of zero a tile is left x right^T."""
    layer = member(shape, 2, "subdiagonal")
    with torch.no_grad():
        layer.down.zero_()
    w = layer.dense().detach().reshape(shape[0], shape[1], -1)
    for (i, j, tap), value in np.ndenumerate(w.numpy()):
        column = tap * math.ceil(shape[1] / layer.width) + j // layer.width
        row, line = divmod(i, layer.height)
        product = layer.left[row, column, line] @ layer.right[row, column, j % layer.width]
        assert value == pytest.approx(float(product.detach()))


def test_sizes_of_the_reference_layer() -> None:
    """Two square tiles of rank 2 in 1000 x 2000: 4 n r + 4 (n - 1)."""
    assert Ldr((1000, 2000), 2).num_parameters() == 11_996
    assert Ldr((512, 512, 3), 63).height == 512
    assert Ldr((64, 64), 1, "tridiagonal", block=32).num_parameters() == 4 * (2 * 32 + 2 * (3 * 32 - 2))


@pytest.mark.parametrize("options", [{}, {"operator": "tridiagonal"}, {"block": 50}])
def test_size_is_kept_and_nearly_used(options: dict[str, Any]) -> None:
    for shape in ((128, 200), (101, 307), (64, 96, 3)):
        for size in (0.5, 0.25):
            layer = structures.init("ldr", shape, size, **options)
            assert 0.7 * size < layer.num_parameters() / math.prod(shape) <= size
        smallest = structures.init("ldr", shape, rank=1, **options)
        assert smallest.num_parameters() == Ldr.min_parameters(shape, Ldr.Options(**options))


def test_what_cannot_be_reached_says_the_smallest() -> None:
    smallest = Ldr.min_parameters((60, 40), Ldr.Options())
    with pytest.raises(CannotShrink, match=r"cannot reach size 0.01; the smallest is 0.12, at rank 1"):
        structures.fit("ldr", random(60, 40), 0.01)
    assert structures.fit("ldr", random(60, 40), smallest / 2400, steps=1).num_parameters() == smallest


def test_wrong_options_are_user_errors() -> None:
    for options in ({}, {"rank": 2, "size": 0.5}, {"rank": 0}, {"rank": 2, "operator": "diagonal"},
                    {"rank": 2, "block": 0}):
        with pytest.raises(UserError, match="ldr"):
            structures.fit("ldr", random(6, 5), **options)
    with pytest.raises(UserError, match="no rank 7"):
        structures.build("ldr", {"shape": [6, 6], "rank": 7})


@pytest.mark.parametrize("shape", [(24, 24), (16, 16, 2)])
def test_descent_makes_a_random_weight_better_than_by_its_svd(shape: tuple[int, ...]) -> None:
    w = random(*shape)
    singular = np.linalg.svd(w.reshape(*shape[:2], -1).permute(2, 0, 1).numpy(), compute_uv=False)
    tail = float(np.sqrt((singular[:, 6:] ** 2).sum()))
    errors = [float((structures.fit("ldr", w, rank=6, operator=o).dense() - w).detach().norm())
              for o in ("subdiagonal", "tridiagonal")]
    assert errors[1] < errors[0] < 0.95 * tail


def test_full_rank_is_the_weight_and_a_zero_weight_is_zero() -> None:
    w = random(10, 10)
    assert float((structures.fit("ldr", w, rank=10, steps=200).dense() - w).detach().norm() / w.norm()) < 1e-3
    assert not structures.fit("ldr", torch.zeros(10, 10), rank=2).dense().any()


@pytest.mark.parametrize("operator", ["subdiagonal", "tridiagonal"])
def test_from_scratch_has_the_variance_of_a_dense_start_and_is_seeded(operator: str) -> None:
    for shape in ((256, 256), (128, 64, 3)):
        layer = structures.init("ldr", shape, 0.4, seed=3, operator=operator)
        w = layer.dense().detach()
        assert float(w.std()) == pytest.approx(1 / math.sqrt(3 * math.prod(shape[1:])), rel=0.05)
        assert torch.equal(w, structures.init("ldr", shape, 0.4, seed=3, operator=operator).dense())
        assert not torch.equal(w, structures.init("ldr", shape, 0.4, seed=4, operator=operator).dense())


def test_powers_cannot_overflow() -> None:
    layer = structures.init("ldr", (512, 512), rank=1)
    with torch.no_grad():
        layer.down.mul_(10)
        layer.across.mul_(-10)
        assert layer.dense().abs().max() <= 512 * layer.left.abs().max() * layer.right.abs().max()
    rows = contracted(tridiagonal(random(13) * 3)).abs().sum(1)
    assert float(rows.max()) <= 1 + 1e-12


@pytest.mark.parametrize("operator", ["subdiagonal", "tridiagonal"])
def test_half_precision_weights_keep_their_dtype_and_autocast_changes_nothing(operator: str) -> None:
    w = random(16, 12)
    layer = structures.fit("ldr", w.bfloat16(), rank=12, operator=operator)
    assert {numbers.dtype for numbers in layer.parameters()} == {layer.dense().dtype} == {torch.bfloat16}
    torch.testing.assert_close(layer.dense().detach().double(), w, atol=0.1, rtol=0.05)
    layer = structures.fit("ldr", w.float(), rank=4, operator=operator)
    with torch.autocast("cpu", torch.bfloat16):
        kept = layer.dense()
        assert layer(torch.randn(3, 12)).dtype == torch.bfloat16
    assert torch.equal(kept, layer.dense())
