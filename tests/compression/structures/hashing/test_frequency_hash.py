"""Against scipy's DCT, numpy's lstsq, structure hashed, and finite differences."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from scipy.stats import beta as beta_distribution

from asrcompress.compression import structures
from asrcompress.compression.structures import CannotShrink
from asrcompress.compression.structures.hashing.frequency_hash import (
    FrequencyHash,
    band_pools,
    block_bands,
    block_dct,
    change_basis,
    dct_matrix,
    weight_bands,
)
from asrcompress.errors import UserError

NAME = "frequency_hash"


def weight(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def error(layer: structures.Structure, w: torch.Tensor) -> float:
    return float((layer.dense() - w).detach().norm() / w.norm())


@pytest.mark.parametrize("n", [1, 2, 3, 5, 16, 80])
def test_the_transform_is_orthonormal(n: int) -> None:
    torch.testing.assert_close(dct_matrix(n) @ dct_matrix(n).T, torch.eye(n, dtype=torch.float64), atol=1e-14, rtol=0)


@pytest.mark.parametrize("sides", [(3, 3), (5, 5), (16, 3), (1, 7), (4, 3, 2)])
def test_the_transform_is_scipys(sides: tuple[int, ...]) -> None:
    values = weight(*sides)
    ours = (block_dct(sides) @ values.flatten()).view(sides)
    np.testing.assert_allclose(ours.numpy(), dctn(values.numpy(), norm="ortho"), atol=4e-15 * 4)
    assert float(ours.norm()) == pytest.approx(float(values.norm()), rel=1e-14)  # Parseval


@pytest.mark.parametrize("d", [3, 4, 5])
def test_bands_of_a_square_are_the_papers(d: int) -> None:
    bands = block_bands((d, d), d).view(d, d)
    assert all(int(bands[i, j]) == i + j for i in range(d) for j in range(d))
    assert bands.flatten().bincount().tolist() == [*range(1, d + 1), *range(d - 1, 0, -1)]


def test_bands_of_other_blocks_go_by_relative_frequency() -> None:
    assert block_bands((1, 5), 5).tolist() == [0, 1, 2, 3, 4]
    assert block_bands((4, 2), 4).view(4, 2).tolist() == [[0, 2], [1, 3], [2, 4], [3, 5]]
    narrow_last = weight_bands((9, 10, 1), 4, (1,))
    assert narrow_last.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 2]
    for block, window in ((16, (3,)), (3, (7,)), (5, (3, 3))):
        assert weight_bands((9, 37, math.prod(window)), block, window).bincount().min() > 0


def test_a_narrower_last_block_and_several_axes_are_transformed_on_their_own() -> None:
    w = weight(3, 8, 6)
    layer = structures.fit(NAME, w, 1.0, block=5, window=(3, 2))
    coefficients = change_basis(w.flatten(1), [m.T for m in (layer.dct, layer.last_dct)]).view(3, 8, 3, 2)
    for out in range(3):
        for part in (slice(0, 5), slice(5, 8)):
            expected = dctn(w[out, part].view(-1, 3, 2).numpy(), norm="ortho")
            np.testing.assert_allclose(coefficients[out, part].numpy(), expected, atol=1e-13)


@pytest.mark.parametrize(("alpha", "beta"), [(1, 1), (1, 2), (2, 5), (0.5, 0.5), (1, 200)])
def test_the_budget_is_exact_and_follows_the_beta_distribution(alpha: float, beta: float) -> None:
    counts = [1000, 2000, 3000, 2000, 1000]
    for numbers in (5, 6, 90, 1234, 8999, 9000):
        pools = band_pools(counts, numbers, alpha, beta)
        assert sum(pools) == numbers and all(1 <= k <= n for k, n in zip(pools, counts, strict=True))
    pools = np.array(band_pools(counts, 900, alpha, beta))
    density = beta_distribution.pdf((np.arange(5) + 0.5) / 5, alpha, beta)
    free = (pools > 1) & (pools < counts)
    ratios = (pools / counts / density)[free]
    np.testing.assert_allclose(ratios, ratios.mean(), rtol=0.02)
    assert band_pools([7, 7, 7], 12, 1, 1) == [4, 4, 4]


@pytest.mark.parametrize("options", [{}, {"balanced": False}, {"sign": False}])
def test_flat_and_without_a_transform_it_is_hashed(options: dict[str, bool]) -> None:
    """A block of one input and one tap is its own transform, and has one band."""
    for shape in ((13, 11), (13, 11, 1)):
        w = weight(*shape)
        hashed = structures.fit("hashed", w, 0.3, seed=5, **options)
        layer = structures.fit(NAME, w, 0.3, seed=5, block=1, alpha=1.0, beta=1.0, **options)
        assert torch.equal(layer.pool, hashed.pool) and torch.equal(layer.dense(), hashed.dense())
        drawn = structures.init(NAME, shape, 0.3, seed=5, block=1, **options)
        assert torch.equal(drawn.dense(), structures.init("hashed", shape, 0.3, seed=5, **options).dense())


@pytest.mark.parametrize("options", [{}, {"balanced": False}, {"block": 1}, {"block": 3, "window": (2, 2)}])
def test_fit_is_numpys_least_squares_in_the_weight_itself(options: dict[str, object]) -> None:
    w = weight(4, 5, 4)
    layer = structures.fit(NAME, w, 0.5, **options)
    with torch.no_grad():
        fitted, columns = layer.pool.clone(), []
        for k in range(len(fitted)):
            layer.pool.zero_()[k] = 1
            columns.append(layer.dense().flatten().numpy())
    solution = np.linalg.lstsq(np.stack(columns, 1), w.flatten().numpy(), rcond=None)[0]
    np.testing.assert_allclose(fitted.numpy(), solution, atol=1e-12)


def test_smooth_weights_keep_much_more_of_themselves_than_by_hashing_and_shuffled_ones_do_not() -> None:
    time, frequency = torch.linspace(0, 1, 9), torch.linspace(0, 1, 32)
    phases = weight(24, 2).float()[:, :, None, None]
    smooth = torch.cos(3 * frequency[:, None] + phases[:, 0]) * torch.cos(4 * time + phases[:, 1])
    shuffled = smooth.flatten(1)[:, torch.randperm(288, generator=torch.Generator().manual_seed(0))].view(24, 32, 9)
    for w in (smooth, shuffled):
        assert error(structures.fit("hashed", w, 0.125), w) == pytest.approx(math.sqrt(1 - 0.125), abs=0.03)
    assert error(structures.fit(NAME, smooth, 0.125, block=32, beta=20.0), smooth) < 0.3
    assert error(structures.fit(NAME, shuffled, 0.125, block=32, beta=20.0), shuffled) > 0.85


def test_gradients_reach_every_number_and_are_the_transform_of_the_weights() -> None:
    layer = structures.fit(NAME, weight(4, 5, 3), 0.4, block=2)
    x = weight(2, 5, 6, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda *_: (layer.conv1d(x, padding=1), layer.dense()), (x, layer.pool))
    slope = weight(4, 5, 3, seed=2)
    (layer.dense() * slope).sum().backward()
    by_coefficient = change_basis(slope.flatten(1), [m.T for m in (layer.dct, layer.last_dct)]).flatten() * layer.signs
    expected = np.bincount(layer.indices.numpy(), by_coefficient.numpy(), len(layer.pool))
    np.testing.assert_allclose(layer.pool.grad.numpy(), expected, atol=1e-12)


def test_size_is_used_whole_and_the_smallest_is_said() -> None:
    for shape in ((31, 37), (7, 33, 5)):
        for size in (0.5, 0.25, 0.1):
            assert structures.fit(NAME, weight(*shape), size, block=8).num_parameters() == int(size * math.prod(shape))
    fewest = FrequencyHash.min_parameters((31, 37), FrequencyHash.Options(block=8))
    assert fewest == 8 == structures.fit(NAME, weight(31, 37), 8 / (31 * 37), block=8).num_parameters()
    with pytest.raises(CannotShrink, match="with 8 parameters"):
        structures.fit(NAME, weight(31, 37), 7 / (31 * 37), block=8)
    for shape in ((7, 5), (5, 3, 2)):
        torch.testing.assert_close(structures.fit(NAME, weight(*shape), 1.0).dense().detach(), weight(*shape))


def test_from_scratch_has_the_variance_of_a_dense_start() -> None:
    for shape in ((256, 500), (128, 64, 3)):
        std = float(structures.init(NAME, shape, 0.5, seed=3).dense().detach().std())
        assert std == pytest.approx(1 / math.sqrt(3 * math.prod(shape[1:])), rel=0.02)


def test_a_fresh_process_rebuilds_the_same_weight_from_the_pool_alone() -> None:
    layer = structures.init(NAME, (6, 7, 3), 0.5, seed=8, block=4)
    assert list(layer.state_dict()) == ["pool"]
    code = ("import json, sys; from asrcompress.compression import structures; import torch;"
            f"layer = structures.build('{NAME}', json.loads(sys.argv[1]));"
            "layer.load_state_dict({'pool': torch.arange(63.) / 63});"
            "print(layer.dense().flatten().tolist())")
    printed = subprocess.run([sys.executable, "-c", code, json.dumps(layer.spec())], capture_output=True, text=True,
                             check=True).stdout
    layer.load_state_dict({"pool": torch.arange(63.0) / 63})
    assert json.loads(printed) == layer.dense().flatten().tolist()


def test_half_precision_is_fitted_in_float32_and_autocast_leaves_the_weight_exact() -> None:
    w = weight(16, 12, 3).float()
    exact = structures.fit(NAME, w, 0.5)
    half = structures.fit(NAME, w.bfloat16(), 0.5)
    assert half.pool.dtype == half.dense().dtype == torch.bfloat16
    torch.testing.assert_close(half.dense().float(), exact.dense(), atol=0.06, rtol=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        inside = exact.dense()
        assert exact.conv1d(torch.randn(1, 12, 9)).dtype == torch.bfloat16
    assert torch.equal(inside, exact.dense())


def test_wrong_calls_are_user_errors() -> None:
    w = weight(6, 5)
    for options in ({"block": 0}, {"alpha": 0.0}, {"beta": -1.0}, {"window": (0, 3)}):
        with pytest.raises(UserError, match=NAME):
            structures.fit(NAME, w, 0.5, **options)
    with pytest.raises(UserError, match="needs a size"):
        structures.fit(NAME, w)
    spec = structures.fit(NAME, w, 0.5).spec()
    for change in ({"pools": [1, 2]}, {"pools": [99, *spec["pools"][1:]]}, {"hash": "md5"}, {"block": 0}):
        with pytest.raises(UserError):
            structures.build(NAME, {**spec, **change})
