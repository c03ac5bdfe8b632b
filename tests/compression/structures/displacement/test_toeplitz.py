"""Against scipy's Toeplitz matrices and least squares by numpy."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import toeplitz

from asrcompress.compression import structures
from asrcompress.compression.structures import CannotShrink
from asrcompress.compression.structures.displacement.toeplitz import Toeplitz, sides
from asrcompress.errors import UserError
from tests.compression.structures.checks import check_product

# one block, many, cropped ones, by points and by FFT, kernels
CASES = [((96, 96), 96), ((7, 13), 13), ((41, 29), 5), ((41, 29), 35), ((150, 90), 50), ((24, 20, 3), 4),
         ((90, 100, 2), 95), ((1, 1), 1), ((5, 1), 5)]


def weight(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_layer(shape: tuple[int, ...], block: int) -> Toeplitz:
    return structures.init("toeplitz", shape, block=block).double()  # type: ignore[return-value]


@pytest.mark.parametrize(("shape", "block"), CASES)
def test_the_weight_is_blocks_of_scipys_toeplitz_matrices(shape: tuple[int, ...], block: int) -> None:
    layer = random_layer(shape, block)
    (out, inputs, taps), (height, _) = (*shape, 1)[:3], sides(shape, block)
    full = []
    for tap in range(taps):
        grid = layer.diagonals.detach()[:, tap * layer.columns : (tap + 1) * layer.columns].numpy()
        # scipy wants the first column and the first row; t_0 comes first, t_(-1) last
        blocks = [[toeplitz(t[:height], np.concatenate((t[:1], t[height:][::-1]))) for t in row] for row in grid]
        full.append(np.block(blocks)[:out, :inputs])
    np.testing.assert_array_equal(layer.dense().detach().numpy(), np.stack(full, 2).reshape(shape))


@pytest.mark.parametrize(("shape", "block"), CASES)
@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 3, 2)])
def test_the_product_is_the_matrix(shape: tuple[int, ...], block: int, stride: int, padding: int,
                                   dilation: int) -> None:
    check_product(random_layer(shape, block), weight(2, shape[1], 25, seed=1), stride, padding, dilation)


def test_projection_is_least_squares() -> None:
    w = weight(7, 9)
    layer = structures.fit("toeplitz", w, block=9)
    offset = np.arange(7)[:, None] - np.arange(9)
    order = [*range(7), *range(-8, 0)]
    basis = np.stack([(offset == k).ravel() for k in order], 1).astype(float)
    expected = np.linalg.lstsq(basis, w.numpy().ravel(), rcond=None)[0]
    np.testing.assert_allclose(layer.diagonals.detach().numpy().ravel(), expected, atol=1e-13)


@pytest.mark.parametrize(("shape", "block"), CASES)
def test_a_member_is_its_own_projection(shape: tuple[int, ...], block: int) -> None:
    w = random_layer(shape, block).dense().detach()
    torch.testing.assert_close(structures.fit("toeplitz", w, block=block).dense().detach(), w)
    torch.testing.assert_close(structures.fit("toeplitz", w, 1.0).dense().detach(), w)


def test_size_is_kept_and_nearly_used() -> None:
    for shape in ((96, 160), (64, 96, 3), (101, 103)):
        for size in (0.5, 0.25, 0.0625):
            layer = structures.fit("toeplitz", weight(*shape), size)
            assert 0.5 * size <= layer.num_parameters() / math.prod(shape) <= size


def test_the_smallest_is_one_block_of_the_whole_weight_or_squares_in_a_row() -> None:
    assert Toeplitz.min_parameters((60, 40), Toeplitz.Options()) == 99
    assert Toeplitz.min_parameters((60, 40, 3), Toeplitz.Options()) == 297
    assert Toeplitz.min_parameters((60, 40), Toeplitz.Options(block=20)) == 6 * 39
    for shape in ((60, 40), (37, 41, 3), (2, 9)):
        fewest = Toeplitz.min_parameters(shape, Toeplitz.Options())
        assert structures.fit("toeplitz", weight(*shape), fewest / math.prod(shape)).num_parameters() == fewest
        with pytest.raises(CannotShrink, match="toeplitz"):
            structures.fit("toeplitz", weight(*shape), (fewest - 1) / math.prod(shape))


def test_wrong_options_are_user_errors() -> None:
    for options in ({}, {"size": 0.5, "block": 2}, {"block": 0}, {"block": 7}):
        with pytest.raises(UserError, match="toeplitz"):
            structures.fit("toeplitz", weight(6, 5), **options)


def test_gradients() -> None:
    layer, x = random_layer((4, 3, 2), 3), weight(1, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda *_: (layer.product(x, 1, 1), layer.dense()), (x, layer.diagonals))
    layer, x = random_layer((20, 15), 20), weight(1, 2, 15).requires_grad_()
    assert torch.autograd.gradcheck(lambda *_: layer.product(x, 1, 1), (x, layer.diagonals))


def test_from_scratch_has_the_variance_of_a_dense_start() -> None:
    w = structures.init("toeplitz", (256, 512), 0.125, seed=3).dense().detach()
    assert float(w.std()) == pytest.approx(1 / math.sqrt(3 * 512), rel=0.05)


def test_macs_of_one_block_are_transforms_of_twice_its_length() -> None:
    layer = structures.init("toeplitz", (2048, 2048), block=2048)
    assert layer.num_parameters() == 4095 and layer.length == 4096
    assert layer.macs(10) == 10 * (2 * 1.25 * 4096 * 12 + 4 * 2049)
