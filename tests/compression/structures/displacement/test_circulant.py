"""Against scipy's circulant matrices, least squares by numpy, torch's own products and a fresh process."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.linalg import circulant
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from asrcompress.compression import structures
from asrcompress.compression.structures import CannotShrink
from asrcompress.compression.structures.displacement._cyclic import COLUMNS, IN_CACHE, mix, points, transforms
from asrcompress.compression.structures.displacement._tiles import tile, untile
from asrcompress.compression.structures.displacement.circulant import Circulant
from asrcompress.errors import UserError
from tests.compression.structures.checks import check_product
from tests.conftest import REPO

# one block, many, cropped ones, by points and by FFT, kernels
CASES = [((96, 96), 96), ((7, 13), 13), ((40, 28), 4), ((41, 29), 5), ((150, 90), 50), ((450, 9), 45), ((24, 20, 3), 4),
         ((90, 100, 2), 50), ((1, 1), 1)]


def weight(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_layer(shape: tuple[int, ...], block: int, **options: object) -> Circulant:
    return structures.init("circulant", shape, block=block, **options).double()  # type: ignore[return-value]


def explicit(layer: Circulant) -> np.ndarray:
    """The weight, block by block, as scipy writes circulant matrices."""
    out, inputs, taps = (*layer.shape, 1)[:3]
    kernels = []
    for tap in range(taps):
        grid = layer.diagonals.detach()[:, tap * layer.columns : (tap + 1) * layer.columns].numpy()
        kernels.append(np.block([[circulant(c) for c in row] for row in grid])[:out, :inputs])
    full = np.stack(kernels, 2) * layer.signs.numpy()[None, :, None]
    return full.reshape(layer.shape)


@pytest.mark.parametrize(("shape", "block"), CASES)
def test_the_weight_is_blocks_of_scipys_circulants_with_signed_columns(shape: tuple[int, ...], block: int) -> None:
    layer = random_layer(shape, block)
    np.testing.assert_allclose(layer.dense().detach().numpy(), explicit(layer), atol=1e-15)


@pytest.mark.parametrize(("shape", "block"), CASES)
@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 3, 2), (3, 1, 1)])
def test_the_product_is_the_matrix(shape: tuple[int, ...], block: int, stride: int, padding: int,
                                   dilation: int) -> None:
    check_product(random_layer(shape, block), weight(2, shape[1], 25, seed=1), stride, padding, dilation)


def test_forward_and_conv1d_take_the_fast_way_where_it_pays_and_add_the_bias() -> None:
    for shape, block in (((450, 420), 450), ((96, 80, 3), 16), ((6, 5, 3), 3)):
        layer, x, bias = random_layer(shape, block), weight(3, shape[1], 12), weight(shape[0])
        assert layer.fast(1) == (shape[0] > 6)
        if len(shape) == 2:
            torch.testing.assert_close(layer(x.transpose(1, 2), bias), x.transpose(1, 2) @ layer.dense().T + bias)
            torch.testing.assert_close(layer(x[0, :, 0]), layer.dense() @ x[0, :, 0])
        else:
            expected = functional.conv1d(x, layer.dense(), bias, 2, 1, 2)
            torch.testing.assert_close(layer.conv1d(x, 2, 1, 2, bias), expected)


def test_projection_is_least_squares_and_the_means_of_wrapped_diagonals() -> None:
    w = weight(7, 9)
    layer = structures.fit("circulant", w, block=9)
    signs = layer.signs.numpy()
    basis = [np.where((np.arange(7)[:, None] - np.arange(9)) % 9 == k, signs, 0.0).ravel() for k in range(9)]
    expected = np.linalg.lstsq(np.stack(basis, 1), w.numpy().ravel(), rcond=None)[0]
    np.testing.assert_allclose(layer.diagonals.detach().numpy().ravel(), expected, atol=1e-13)
    square = weight(6, 6)
    means = [np.mean([square[(j + k) % 6, j] for j in range(6)]) for k in range(6)]
    found = structures.fit("circulant", square, block=6, signs=False).diagonals.detach().flatten()
    np.testing.assert_allclose(found.numpy(), means, atol=1e-15)


@pytest.mark.parametrize(("shape", "block"), CASES)
def test_a_member_is_its_own_projection(shape: tuple[int, ...], block: int) -> None:
    w = random_layer(shape, block, seed=5).dense().detach()
    torch.testing.assert_close(structures.fit("circulant", w, seed=5, block=block).dense().detach(), w)
    torch.testing.assert_close(structures.fit("circulant", w, 1.0).dense().detach(), w)


def test_a_random_weight_loses_all_but_one_part_of_b() -> None:
    w = weight(128, 128)
    for block in (4, 16):
        error = (structures.fit("circulant", w, block=block).dense() - w).detach().norm() / w.norm()
        assert float(error) == pytest.approx(math.sqrt(1 - 1 / block), abs=0.005)


def test_gradients_are_correlations() -> None:
    layer, x, out = random_layer((40, 40), 40), weight(5, 40).requires_grad_(), weight(5, 40, seed=2)
    layer.product(x[None], 1, 1).mul(out).sum().backward()
    spectrum, flipped = np.fft.fft(out.numpy()), x.detach().numpy() * layer.signs.numpy()
    wanted = np.fft.ifft(spectrum * np.fft.fft(flipped).conj()).real.sum(0)
    np.testing.assert_allclose(layer.diagonals.grad.numpy().ravel(), wanted, atol=1e-12)
    numbers = np.fft.fft(layer.diagonals.detach().numpy().ravel())
    wanted = np.fft.ifft(numbers.conj() * spectrum).real * layer.signs.numpy()
    np.testing.assert_allclose(x.grad.numpy(), wanted, atol=1e-12)


@pytest.mark.parametrize(("shape", "block"), [((4, 3, 2), 3), ((34, 3), 34)])
def test_gradients_by_finite_differences(shape: tuple[int, ...], block: int) -> None:
    layer, x = random_layer(shape, block), weight(1, 4, shape[1]).requires_grad_()
    assert torch.autograd.gradcheck(lambda *_: (layer.product(x, 1, 1), layer.dense()), (x, layer.diagonals))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 16, 31])
def test_points_make_a_cyclic_convolution(n: int) -> None:
    c, x = weight(n), weight(n, seed=1)
    analysis, kernel, synthesis = transforms(n, n, n, torch.float64, torch.device("cpu"))
    assert len(analysis) == points(n) <= 1.5 * n
    torch.testing.assert_close(synthesis.T @ ((kernel @ c) * (analysis @ x)),
                               torch.from_numpy(circulant(c.numpy())) @ x)


def test_every_way_to_mix_spectra_is_the_same_sum() -> None:
    for frames, rows, columns, n in ((2, 3, 4, 5), (1, 1, 1, 9), (2, 3, COLUMNS + 1, 5), (IN_CACHE // 10, 2, 3, 3),
                                     (IN_CACHE // 20, 1, COLUMNS + 1, 3)):
        x, kernel = torch.complex(*weight(2, frames, columns, n)), torch.complex(*weight(2, rows, columns, n))
        expected = torch.einsum("fcn,rcn->frn", x, kernel)
        torch.testing.assert_close(mix(x, kernel), expected)


def test_tiles_come_together_again() -> None:
    for shape, height, width in (((7, 11, 3), 4, 5), ((8, 10), 4, 5), ((3, 2), 7, 7)):
        w = weight(*shape)
        tiles = tile(w, height, width)
        assert tiles.shape[2:] == (height, width)
        assert torch.equal(untile(tiles, shape), w)


@pytest.mark.parametrize("size", [0.5, 0.25, 0.0625, 0.01])
def test_size_is_kept_and_used_as_far_as_blocks_allow(size: float) -> None:
    for shape in ((96, 160), (64, 96, 3), (101, 103)):
        numbers = structures.fit("circulant", weight(*shape), max(size, 160 / 96**2)).num_parameters()
        assert 0.4 * size <= numbers / math.prod(shape) <= max(size, 160 / 96**2)
    layer = structures.fit("circulant", weight(96, 160), size=0.0625)
    assert layer.block == 16 and layer.num_parameters() == 96 * 160 // 16


def test_what_cannot_be_reached_says_the_smallest() -> None:
    with pytest.raises(CannotShrink, match=r"cannot reach size 0.001; the smallest is 0.025, with blocks of 60"):
        structures.fit("circulant", weight(60, 40).expand(60, 40), 0.001)
    for shape in ((60, 40), (37, 41, 3), (2, 9)):
        fewest = Circulant.min_parameters(shape, Circulant.Options())
        layer = structures.fit("circulant", weight(*shape), fewest / math.prod(shape))
        assert layer.num_parameters() == fewest == max(shape[:2]) * (*shape, 1)[2]
    assert Circulant.min_parameters((60, 40), Circulant.Options(block=4)) == 600


def test_wrong_options_are_user_errors() -> None:
    for options in ({}, {"size": 0.5, "block": 2}, {"block": 0}, {"block": 7}):
        with pytest.raises(UserError, match="circulant"):
            structures.fit("circulant", weight(6, 5), **options)
    with pytest.raises(UserError, match="hash tables come from 'dice'"):
        structures.build("circulant", {"shape": [6, 5], "block": 2, "hash": "dice"})


def test_signs_are_not_stored_and_come_again_in_a_fresh_process() -> None:
    layer = structures.init("circulant", (70, 50), block=70, seed=9)
    assert list(layer.state_dict()) == ["diagonals"] and set(layer.signs.tolist()) == {-1.0, 1.0}
    code = ("import torch; from asrcompress.compression import structures; "
            f"layer = structures.build('circulant', {layer.spec()!r}); print(layer.signs.int().tolist())")
    fresh = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert fresh.stdout.strip() == str(layer.signs.int().tolist())
    plain = structures.init("circulant", (70, 50), block=70, seed=9, signs=False)
    assert plain.spec() == {"shape": [70, 50], "block": 70, "signs": False}
    torch.testing.assert_close(plain.dense() * layer.signs, layer.dense())


def test_from_scratch_has_the_variance_of_a_dense_start_and_is_seeded() -> None:
    for shape in ((256, 512), (128, 64, 3)):
        w = structures.init("circulant", shape, 0.125, seed=3).dense().detach()
        assert float(w.std()) == pytest.approx(1 / math.sqrt(3 * math.prod(shape[1:])), rel=0.05)
        assert torch.equal(w, structures.init("circulant", shape, 0.125, seed=3).dense())
        assert not torch.equal(w, structures.init("circulant", shape, 0.125, seed=4).dense())


def test_macs_of_the_points_are_those_that_torch_counts() -> None:
    for shape, stride in (((96, 80), 1), ((64, 96, 3), 2)):
        layer, x = structures.init("circulant", shape, block=16), torch.randn(1, shape[1], 20)
        with torch.no_grad():
            layer.kept(layer._kernel, [layer.diagonals])
            with FlopCounterMode(display=False) as counter:
                frames = x.shape[2] - 2 * (len(shape) - 2)
                layer.conv1d(x, stride) if len(shape) == 3 else layer(x[0].T)
        beside = len(shape) == 3 and points(16) * 80 * 2 * (x.shape[2] - frames)  # frames at the edges
        assert counter.get_total_flops() - beside * 96 // 80 == 2 * layer.macs(frames // stride, stride)


def test_macs_of_the_fft_grow_with_n_log_n_and_small_weights_are_dense() -> None:
    large = structures.init("circulant", (2048, 2048), block=2048)
    assert large.macs(10) == 10 * (2 * 1.25 * 2048 * 11 + 4 * 1025)
    assert large.num_parameters() == 2048
    assert structures.init("circulant", (8, 8), block=8).macs(3) == 3 * 64


def test_spectra_are_kept_at_inference_and_follow_the_numbers() -> None:
    for block, name in ((16, "_kernel"), (256, "_spectrum")):
        layer, x = structures.init("circulant", (256, 256), block=block).eval(), torch.randn(4, 256)
        with torch.no_grad():
            layer(x)
            kept = layer._kept.get(name)
            layer(x)
            assert kept is not None and layer._kept[name] is kept
            layer.diagonals.mul_(2)
            torch.testing.assert_close(layer(x), x @ layer.dense().T, rtol=1e-4, atol=1e-5)
        layer(x)
        assert not layer._kept
        with torch.inference_mode():
            layer(x)
        assert not layer.train()._kept
        layer(x).sum().backward()  # what inference mode has made is not in the way


def test_half_precision_and_autocast() -> None:
    for block in (16, 256):
        w = random_layer((256, 256), block).dense().detach()
        layer = structures.fit("circulant", w.bfloat16(), block=block)
        x = torch.randn(8, 256)
        assert layer.diagonals.dtype == torch.bfloat16 and layer(x.bfloat16()).dtype == torch.bfloat16
        expected = x @ w.float().T
        for y in (layer(x.bfloat16()), layer.float()(x)):
            torch.testing.assert_close(y.detach().float(), expected, atol=0.05, rtol=0.05)
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(x)
            y.float().sum().backward()
        torch.testing.assert_close(y.detach().float(), expected, atol=0.05, rtol=0.05)
