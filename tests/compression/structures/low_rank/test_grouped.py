"""Against numpy, scipy's block matrices, torch's own convolution, brute force and finite differences."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch.nn import functional

from asrcompress.compression import structures
from asrcompress.compression.structures import CannotShrink
from asrcompress.compression.structures.low_rank.grouped import Grouped, relative_errors
from asrcompress.errors import UserError


def weight(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def block_low_rank(groups: int, out: int, inputs: int, rank: int) -> torch.Tensor:
    """A matrix whose blocks of columns have this rank, and little else."""
    parts = [weight(out, rank, seed=g) @ weight(rank, inputs // groups, seed=g + 50) for g in range(groups)]
    return torch.cat(parts, 1) + 0.01 * weight(out, inputs, seed=99)


def truncated(matrix: np.ndarray, groups: int, rank: int) -> np.ndarray:
    parts = []
    for block in np.split(matrix, groups, axis=1):
        u, s, vh = np.linalg.svd(block, full_matrices=False)
        parts.append((u[:, :rank] * s[:rank]) @ vh[:rank])
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_each_group_of_inputs_is_its_best_truncation(groups: int) -> None:
    for w in (weight(10, 12), weight(7, 6, 4)):
        layer = structures.fit("grouped", w, groups=groups, rank=2)
        expected = truncated(w.flatten(1).numpy(), groups, 2)
        np.testing.assert_allclose(layer.dense().detach().flatten(1), expected, atol=1e-12)


def test_one_group_is_svd() -> None:
    w = weight(10, 6, 3)
    one, svd = structures.fit("grouped", w, groups=1, rank=4), structures.fit("svd", w, rank=4, unfolding="input")
    torch.testing.assert_close(one.dense(), svd.dense())
    singular = np.linalg.svd(w.flatten(1).numpy(), compute_uv=False)
    assert float((one.dense() - w).detach().norm()) ** 2 == pytest.approx((singular[4:] ** 2).sum())
    assert float(relative_errors(w, 1)[4]) == pytest.approx(singular[4] / singular[0])


def test_the_layer_is_left_times_a_block_diagonal_matrix() -> None:
    layer = structures.fit("grouped", weight(10, 12), groups=3, rank=2)
    right = scipy.linalg.block_diag(*layer.right.detach().numpy())
    np.testing.assert_allclose(layer.dense().detach(), layer.left.detach().numpy() @ right)
    assert float(layer.left.detach().norm()) == pytest.approx(float(layer.right.detach().norm()))
    for rows in ((1,), (5,), (2, 3)):  # one frame goes its own way
        x, bias = weight(*rows, 12), weight(10)
        expected = x.numpy() @ (layer.left.detach().numpy() @ right).T + bias.numpy()
        np.testing.assert_allclose(layer(x, bias).detach(), expected)


def test_bound_with_the_root_holds_and_the_released_code_breaks_its_own() -> None:
    """torchprune leaves out sqrt(k); and it reads s_j where a rank of j loses s_(j+1)."""
    rng, broken = np.random.default_rng(0), 0
    for _ in range(500):
        groups = int(rng.choice([2, 3, 4]))
        out, inputs = int(rng.integers(4, 14)), groups * int(rng.integers(2, 6))
        rank = int(rng.integers(1, min(out, inputs // groups)))
        matrix = rng.standard_normal((out, inputs))
        w = torch.from_numpy(matrix)
        true = np.linalg.norm(matrix - truncated(matrix, groups, rank), 2) / np.linalg.norm(matrix, 2)
        bound, released = (float(relative_errors(w, groups, measure)[rank]) for measure in ("bound", "released"))
        assert true <= bound * (1 + 1e-9) and bound == pytest.approx(math.sqrt(groups) * released)
        broken += true > released * (1 + 1e-9)
    assert broken > 300


def test_frobenius_measure_is_the_error_itself() -> None:
    w = weight(9, 8, 3)
    for groups, rank in ((1, 3), (2, 2), (4, 5)):
        error = (structures.fit("grouped", w, groups=groups, rank=rank).dense() - w).detach().norm() / w.norm()
        assert float(relative_errors(w, groups, "frobenius")[rank]) == pytest.approx(float(error))
    assert float(relative_errors(w, 4, "frobenius")[-1]) == float(relative_errors(w, 4)[-1]) == 0


@pytest.mark.parametrize("measure", ["bound", "released", "frobenius"])
@pytest.mark.parametrize("size", [0.5, 0.25])
def test_groups_and_rank_are_the_best_of_all(size: float, measure: str) -> None:
    for w in (weight(24, 16), block_low_rank(4, 24, 16, 1), weight(16, 8, 3)):
        layer = structures.fit("grouped", w, size, measure=measure)
        tried = {}
        for groups in (1, 2, 4, 8, 16):
            if w.shape[1] % groups:
                continue
            rank = int(size * w.numel() / (w.shape[0] * groups + math.prod(w.shape[1:])))
            rank = min(rank, w.shape[0], math.prod(w.shape[1:]) // groups)
            if rank:
                tried[groups] = float(relative_errors(w, groups, measure)[rank])
        assert tried[layer.spec()["groups"]] == min(tried.values())
        assert layer.num_parameters() <= size * w.numel()


def test_blocks_of_low_rank_are_found_and_groups_then_beat_svd() -> None:
    w = block_low_rank(4, 32, 64, 2)
    layer = structures.fit("grouped", w, 0.19)
    assert layer.spec() == {"shape": [32, 64], "groups": 4, "rank": 2}
    plain = structures.fit("svd", w, 0.19)
    assert float((layer.dense() - w).detach().norm()) < 0.1 * float((plain.dense() - w).detach().norm())


def test_error_takes_the_fewest_numbers_that_keep_it() -> None:
    w = weight(20, 16)
    for error in (0.9, 0.5, 0.2, 0.0):
        layer = structures.fit("grouped", w, error=error)
        enough = [c.num_parameters for c in Grouped.error_bounds(w, Grouped.Options()) if c.error <= error]
        assert layer.num_parameters() == min(enough)
        lost = torch.linalg.matrix_norm(layer.dense().detach() - w, 2) / torch.linalg.matrix_norm(w, 2)
        assert float(lost) <= error + 1e-9


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (1, 3, 3), (3, 2, 2)])
def test_convolution_is_torchs_with_the_dense_weight(groups: int, stride: int, padding: int, dilation: int) -> None:
    w, x, bias = weight(6, 8, 3), weight(2, 8, 25, seed=1), weight(6, seed=2)
    layer = structures.fit("grouped", w, groups=groups, rank=2)
    expected = functional.conv1d(x, layer.dense(), bias, stride, padding, dilation)
    torch.testing.assert_close(layer.conv1d(x, stride, padding, dilation, bias), expected)
    torch.testing.assert_close(layer.conv1d(x, stride, padding, dilation), expected - bias[:, None])


def test_matrix_forward_is_the_dense_product_in_any_batch_shape() -> None:
    layer = structures.fit("grouped", weight(6, 8), groups=4, rank=2)
    x, bias = weight(2, 3, 8, seed=1), weight(6, seed=2)
    torch.testing.assert_close(layer(x, bias), x @ layer.dense().T + bias)
    torch.testing.assert_close(layer(x.transpose(0, 1)), x.transpose(0, 1) @ layer.dense().T)
    torch.testing.assert_close(layer(x[0, 0]), layer.dense() @ x[0, 0])


def test_numbers_and_macs_of_the_1000_by_2000_layer() -> None:
    with torch.device("meta"):
        layer = Grouped((1000, 1000, 2), 2, 128)
    assert layer.num_parameters() == layer.macs(1) == 512_000
    assert layer.macs(10, stride=3) == 5_120_000
    assert Grouped.min_parameters((1000, 1000, 2), Grouped.Options()) == 3000
    assert Grouped.min_parameters((1000, 1000, 2), Grouped.Options(groups=4)) == 6000


def test_size_is_kept_and_nearly_used() -> None:
    for shape in ((100, 64), (64, 64, 3), (61, 53), (37, 29, 3)):
        for size in (0.5, 0.25, 0.125):
            layer = structures.fit("grouped", weight(*shape), size)
            assert 0.7 * size <= layer.num_parameters() / math.prod(shape) <= size
            scratch = structures.init("grouped", shape, size)
            assert 0.7 * size <= scratch.num_parameters() / math.prod(shape) <= size
    ranks = structures.fit("grouped", weight(256, 128), 0.5, rank_multiple=8).spec()["rank"]
    assert ranks % 8 == 0


def test_what_cannot_be_reached_says_the_smallest() -> None:
    for options in ({}, {"rank_multiple": 8}):
        with pytest.raises(CannotShrink, match=r"cannot reach size 0.01; the smallest is 0.042, at rank 1"):
            structures.fit("grouped", weight(60, 40), 0.01, **options)
        assert structures.fit("grouped", weight(60, 40), 100 / 2400, **options).num_parameters() == 100
    with pytest.raises(CannotShrink, match=r"cannot reach size 0.01; the smallest is 0.042"):
        structures.init("grouped", (60, 40), 0.01)


def test_wrong_options_are_user_errors() -> None:
    w = weight(6, 8)
    for options in ({}, {"rank": 2, "error": 0.5}, {"rank": 0}, {"rank": 5, "groups": 2}, {"error": -1},
                    {"size": 0.9, "groups": 3}, {"size": 0.9, "groups": 0}, {"size": 0.9, "measure": "guess"},
                    {"size": 0.9, "rank_multiple": 0}):
        with pytest.raises(UserError, match="grouped"):
            structures.fit("grouped", w, **options)
    with pytest.raises(UserError, match="grouped"):
        structures.init("grouped", (6, 8))


@pytest.mark.parametrize("shape", [(4, 6, 2), (5, 4)])
def test_gradients(shape: tuple[int, ...]) -> None:
    layer = structures.fit("grouped", weight(*shape), groups=2, rank=2)
    x = weight(1, shape[1], 4, seed=1).requires_grad_()
    inputs = (x, layer.left, layer.right)  # gradcheck moves them in place, so the layer sees it
    run = layer.conv1d if len(shape) == 3 else lambda x: layer(x.transpose(1, 2))
    assert torch.autograd.gradcheck(lambda *_: (run(x), layer.dense()), inputs)


def test_from_scratch_has_the_variance_of_a_dense_start_and_is_seeded() -> None:
    for shape in ((256, 512), (128, 64, 3), (64, 66)):
        layer = structures.init("grouped", shape, 0.5, seed=3)
        w = layer.dense().detach()
        assert float(w.std()) == pytest.approx(1 / math.sqrt(3 * math.prod(shape[1:])), rel=0.06)
        assert torch.equal(w, structures.init("grouped", shape, 0.5, seed=3).dense())
        assert not torch.equal(w, structures.init("grouped", shape, 0.5, seed=4).dense())
        assert layer.spec()["groups"] == (2 if shape[1] % 4 else 4)


def test_curve_is_the_energy_that_each_step_removes() -> None:
    w = weight(20, 16, 3)
    curve = Grouped.rate_distortion(w, Grouped.Options(groups=2, rank_multiple=2), 0.5)
    for steps in (1, 3):
        layer = Grouped.fit(w, curve.choose(steps))
        left = float((layer.dense() - w).detach().norm()) ** 2
        assert curve.energy - float(curve.gains[:steps].sum()) == pytest.approx(left)
        assert layer.num_parameters() == steps * curve.cost
    curve = Grouped.rate_distortion(block_low_rank(4, 32, 64, 2), Grouped.Options(), 0.19)
    assert curve.choose(1) == Grouped.Options(groups=4, rank=1)


def test_rows_scale_in_place() -> None:
    layer, scale = structures.fit("grouped", weight(6, 4, 3), groups=2, rank=2), weight(6, seed=9)
    expected = layer.dense().detach() * scale[:, None, None]
    assert layer.scale_rows(scale)
    torch.testing.assert_close(layer.dense().detach(), expected)


def test_half_precision_weights_and_autocast() -> None:
    w = weight(16, 12).bfloat16()
    layer = structures.fit("grouped", w, groups=2, rank=6)
    assert layer.left.dtype == torch.bfloat16
    torch.testing.assert_close(layer.dense().detach().float(), w.float(), atol=0.1, rtol=0.05)
    full = structures.fit("grouped", w.float(), groups=2, rank=6)
    with torch.autocast("cpu", torch.bfloat16):
        assert full(torch.randn(3, 12)).dtype == torch.bfloat16
