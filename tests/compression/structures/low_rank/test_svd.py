"""Against numpy, explicit matrices, torch's own convolution and finite differences."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from asrcompress.compression import structures
from asrcompress.compression.structures import CannotShrink
from asrcompress.compression.structures.fitting import truncated_svd
from asrcompress.compression.structures.low_rank._unfolding import energy_rank, size_rank, unfold
from asrcompress.compression.structures.low_rank.svd import Svd
from asrcompress.errors import UserError


def weight(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_error_is_what_eckart_and_young_say() -> None:
    matrix, rank = np.random.default_rng(0).standard_normal((60, 40)), 10
    left, right = (factor.numpy() for factor in truncated_svd(torch.from_numpy(matrix), rank))
    singular = np.linalg.svd(matrix, compute_uv=False)
    error = matrix - left @ right
    assert np.linalg.norm(error, 2) == pytest.approx(singular[rank], rel=1e-14 * 100)
    assert np.linalg.norm(error) ** 2 == pytest.approx((singular[rank:] ** 2).sum(), rel=1e-12)
    assert np.linalg.norm(left) == pytest.approx(np.linalg.norm(right))


@pytest.mark.parametrize("split", [0.0, 0.5, 1.0])
def test_every_split_is_the_same_product_and_0_leaves_orthonormal_rows_scaled(split: float) -> None:
    matrix = weight(12, 9)
    u, s, vh = np.linalg.svd(matrix.numpy(), full_matrices=False)
    left, right = truncated_svd(matrix, 4, split)
    np.testing.assert_allclose((left @ right).numpy(), (u[:, :4] * s[:4]) @ vh[:4], atol=1e-12)
    if split == 1.0:
        torch.testing.assert_close(right @ right.T, torch.eye(4, dtype=torch.float64))


def test_full_rank_is_the_weight() -> None:
    for shape in ((7, 5), (5, 7), (4, 3, 3)):
        w = weight(*shape)
        torch.testing.assert_close(structures.fit("svd", w, rank=99).dense().detach(), w)


def test_size_of_the_5976_senone_layer() -> None:
    shape = (5976, 2048)
    assert math.prod(shape) == 12_238_848
    with torch.device("meta"):
        layer = Svd(shape, 512)
    assert layer.num_parameters() == layer.macs(1) == 4_108_288
    assert size_rank(shape, "input", 1.0) == 1525
    assert Svd.min_parameters(shape, Svd.Options()) == 2048 + 5976


def test_energy_rank_is_numpys_cumulative_sum() -> None:
    singular = np.sort(np.random.default_rng(1).random(30))[::-1].copy()
    shares = np.cumsum(singular**2) / (singular**2).sum()
    for energy in (0.01, 0.5, 0.81, 0.99, 1.0):
        expected = int(np.searchsorted(shares, energy * (1 - 1e-15)) + 1)
        assert energy_rank(torch.from_numpy(singular), energy) == expected
    w = weight(30, 20)
    kept = structures.fit("svd", w, energy=0.9).dense().detach()
    assert 1 - float((w - kept).norm() ** 2 / w.norm() ** 2) >= 0.9


@pytest.mark.parametrize("unfolding", ["input", "output"])
@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (1, 3, 3), (3, 2, 2)])
def test_convolution_is_torchs_with_the_dense_weight(unfolding: str, stride: int, padding: int, dilation: int) -> None:
    w, x, bias = weight(6, 4, 3), weight(2, 4, 25, seed=1), weight(6, seed=2)
    layer = structures.fit("svd", w, rank=3, unfolding=unfolding)
    assert layer.spec() == {"shape": [6, 4, 3], "rank": 3, "unfolding": unfolding}
    expected = functional.conv1d(x, layer.dense(), bias, stride, padding, dilation)
    torch.testing.assert_close(layer.conv1d(x, stride, padding, dilation, bias), expected)
    torch.testing.assert_close(layer.conv1d(x, stride, padding, dilation), expected - bias[:, None])


@pytest.mark.parametrize("unfolding", ["input", "output"])
def test_each_unfolding_is_the_best_of_its_matrix(unfolding: str) -> None:
    w = weight(6, 5, 3)
    layer = structures.fit("svd", w, rank=2, unfolding=unfolding)
    matrix = w.reshape(6, 15) if unfolding == "input" else w.permute(0, 2, 1).reshape(18, 5)
    assert torch.equal(unfold(w, unfolding), matrix)
    tail = np.linalg.svd(matrix.numpy(), compute_uv=False)[2:]
    assert float((layer.dense() - w).detach().norm()) == pytest.approx(np.sqrt((tail**2).sum()))


def test_best_takes_the_smaller_error_at_the_size() -> None:
    w = torch.einsum("or,rik->oik", weight(24, 2), weight(2, 10, 3)) + 0.01 * weight(24, 10, 3, seed=5)
    layers = {way: structures.fit("svd", w, 0.3, unfolding=way) for way in ("input", "output", "best")}
    errors = {way: float((layer.dense() - w).detach().norm()) for way, layer in layers.items()}
    assert layers["best"].spec()["unfolding"] == "input"
    assert errors["best"] == min(errors.values()) < errors["output"]


def test_matrix_forward_is_the_dense_product_in_any_batch_shape() -> None:
    layer = structures.fit("svd", weight(6, 9), 0.5)
    x, bias = weight(2, 3, 9, seed=1), weight(6, seed=2)
    torch.testing.assert_close(layer(x, bias), x @ layer.dense().T + bias)
    torch.testing.assert_close(layer(x[0, 0]), layer.dense() @ x[0, 0])


@pytest.mark.parametrize("size", [0.5, 0.25, 0.125])
def test_size_is_kept_and_nearly_used(size: float) -> None:
    for shape in ((100, 60), (64, 64, 3)):
        for options in ({}, {"rank_multiple": 2}, {"unfolding": "output"}):
            numbers = structures.fit("svd", weight(*shape), size, **options).num_parameters()
            assert 0.7 * size <= numbers / math.prod(shape) <= size


def test_what_cannot_be_reached_says_the_smallest() -> None:
    with pytest.raises(CannotShrink, match=r"cannot reach size 0.01; the smallest is 0.042, at rank 1"):
        structures.fit("svd", weight(60, 40), 0.01)
    assert structures.fit("svd", weight(60, 40), 100 / 2400).num_parameters() == 100


def test_wrong_options_are_user_errors() -> None:
    w = weight(6, 5)
    for options in ({}, {"rank": 2, "energy": 0.5}, {"rank": 0}, {"energy": 1.5}, {"rank": 2, "unfolding": "sideways"}):
        with pytest.raises(UserError, match="svd"):
            structures.fit("svd", w, **options)
    with pytest.raises(UserError, match="rank"):
        structures.build("svd", {"shape": [6, 5], "rank": 6})


@pytest.mark.parametrize("unfolding", ["input", "output"])
def test_gradients(unfolding: str) -> None:
    layer = structures.fit("svd", weight(4, 3, 2), rank=2, unfolding=unfolding)
    x = weight(2, 3, 6, seed=1).requires_grad_()
    inputs = (x, layer.left, layer.right)  # gradcheck moves them in place, so the layer sees it
    assert torch.autograd.gradcheck(lambda *_: (layer.conv1d(x, padding=1), layer.dense()), inputs)


def test_from_scratch_has_the_variance_of_a_dense_start_and_is_seeded() -> None:
    for shape in ((256, 512), (128, 64, 3)):
        layer = structures.init("svd", shape, 0.5, seed=3)
        w = layer.dense().detach()
        assert float(w.std()) == pytest.approx(1 / math.sqrt(3 * math.prod(shape[1:])), rel=0.05)
        assert torch.equal(w, structures.init("svd", shape, 0.5, seed=3).dense())
        assert not torch.equal(w, structures.init("svd", shape, 0.5, seed=4).dense())
        assert float(layer.left.detach().norm()) == pytest.approx(float(layer.right.detach().norm()), rel=0.05)


@pytest.mark.parametrize("unfolding", ["input", "output"])
def test_rows_scale_in_place(unfolding: str) -> None:
    layer, scale = structures.fit("svd", weight(6, 5, 3), rank=2, unfolding=unfolding), weight(6, seed=9)
    expected = layer.dense().detach() * scale[:, None, None]
    assert layer.scale_rows(scale)
    torch.testing.assert_close(layer.dense().detach(), expected)


def test_macs_count_frames_of_output() -> None:
    early = structures.init("svd", (6, 5, 3), rank=2, unfolding="output")
    late = structures.init("svd", (6, 5, 3), rank=2, unfolding="input")
    assert early.macs(10) == 10 * early.num_parameters() == 10 * (2 * 5 + 6 * 2 * 3)
    assert early.macs(10, stride=3) == 30 * 2 * 5 + 10 * 6 * 2 * 3
    assert late.macs(10, stride=3) == 10 * (2 * 5 * 3 + 6 * 2)


def test_half_precision_weights_keep_their_dtype() -> None:
    w = weight(16, 12).bfloat16()
    layer = structures.fit("svd", w, rank=12)
    assert layer.left.dtype == torch.bfloat16
    torch.testing.assert_close(layer.dense().detach().float(), w.float(), atol=0.1, rtol=0.05)
