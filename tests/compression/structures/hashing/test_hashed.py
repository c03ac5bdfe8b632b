"""Against numpy's lstsq, explicit loops, finite differences, and a fresh process."""

import copy
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from asrcompress.compression import structures
from asrcompress.compression.structures import CannotShrink
from asrcompress.compression.structures.hashing._buckets import hashed_values
from asrcompress.compression.structures.hashing.hashed import Hashed, balanced_indices
from asrcompress.compression.structures.tables import hash_indices, hash_signs
from asrcompress.errors import UserError

KINDS = [{"balanced": balanced, "sign": sign} for balanced in (True, False) for sign in (True, False)]


def weight(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("options", KINDS)
def test_it_is_the_papers_formula_entry_by_entry(options: dict[str, bool]) -> None:
    layer = structures.init("hashed", (5, 4, 3), 0.4, seed=7, **options)
    picks, signs = hash_indices(7, 60, 24, options["balanced"]), hash_signs(7, 60)
    pool, w = layer.pool.detach(), layer.dense().detach()
    for i in range(5):
        for j in range(12):
            sign = float(signs[i * 12 + j]) if options["sign"] else 1.0
            assert float(w[i, j // 3, j % 3]) == sign * float(pool[picks[i * 12 + j]])
    assert layer.num_parameters() == 24 and layer.macs(10) == 600 and list(layer.state_dict()) == ["pool"]


@pytest.mark.parametrize("options", KINDS)
def test_fit_is_numpys_least_squares(options: dict[str, bool]) -> None:
    w = weight(9, 8)
    layer = structures.fit("hashed", w, 0.5, seed=3, **options)
    picks, signs = hash_indices(3, 72, 36, options["balanced"]), hash_signs(3, 72)
    design = np.zeros((72, 36))
    design[np.arange(72), picks.numpy()] = signs.numpy() if options["sign"] else 1
    solution = np.linalg.lstsq(design, w.numpy().ravel(), rcond=None)[0]
    np.testing.assert_allclose(layer.pool.detach().numpy(), solution, atol=1e-12)


@pytest.mark.parametrize("size", [1 / 2, 1 / 8, 1 / 64])
@pytest.mark.parametrize("balanced", [True, False])
def test_error_of_an_unordered_weight_is_known(size: float, balanced: bool) -> None:
    """|W - W'| / |W| = sqrt(1 - size x used share of the pool)."""
    w = weight(256, 256)
    layer = structures.fit("hashed", w, size, balanced=balanced)
    used = len(layer.indices.unique()) / layer.buckets
    assert used == (1 if balanced else pytest.approx(1 - math.exp(-1 / size), abs=0.01))
    error = float((layer.dense() - w).detach().norm() / w.norm())
    assert error == pytest.approx(math.sqrt(1 - size * used), abs=0.01)


def test_a_whole_balanced_pool_is_the_weight() -> None:
    for shape in ((7, 5), (5, 3, 2)):
        for size in (1.0, 3.0):
            layer = structures.fit("hashed", weight(*shape), size)
            assert torch.equal(layer.dense(), weight(*shape)) and layer.num_parameters() == math.prod(shape)


def test_values_are_few_and_all_served_alike() -> None:
    layer = structures.init("hashed", (31, 37), 0.1)
    assert layer.buckets == 114
    loads = torch.bincount(layer.indices, minlength=114)
    assert loads.max() - loads.min() <= 1
    assert len(layer.dense().detach().unique()) <= 2 * 114


@pytest.mark.parametrize(("count", "buckets", "piece"), [(1000, 100, 30), (1003, 97, 10), (500, 500, 64), (99, 7, 1)])
def test_pieces_of_a_large_pool_are_local_and_balanced_over_all(count: int, buckets: int, piece: int) -> None:
    table = balanced_indices(3, count, buckets, piece)
    loads = torch.bincount(table, minlength=buckets)
    assert len(table) == count and len(loads) == buckets and loads.max() - loads.min() <= 1
    edges = [buckets * i // -(-buckets // piece) for i in range(-(-buckets // piece) + 1)]
    of_piece = np.searchsorted(edges, table.numpy(), side="right")
    assert (np.diff(of_piece) >= 0).all() and max(np.diff(edges)) <= piece
    assert torch.equal(balanced_indices(3, count, buckets, buckets), hash_indices(3, count, buckets, True))


@pytest.mark.parametrize("options", KINDS)
def test_gradient_is_autograds_own_and_that_of_finite_differences(options: dict[str, bool]) -> None:
    layer = structures.fit("hashed", weight(5, 4, 2), 0.3, **options)
    x, w = weight(2, 4, 6, seed=1).requires_grad_(), weight(40, seed=2)
    assert torch.autograd.gradcheck(lambda *_: (layer.conv1d(x, padding=1), layer.dense()), (x, layer.pool))
    pool = layer.pool.detach().requires_grad_()
    values = pool[layer.indices] * (layer.signs if options["sign"] else 1)
    (expected,) = torch.autograd.grad((values * w).sum(), pool)
    (ours,) = torch.autograd.grad((hashed_values(layer.pool, layer.indices, layer.signs) * w).sum(), layer.pool)
    torch.testing.assert_close(ours, expected)


def test_half_precision_gradients_are_summed_in_float32() -> None:
    pool = torch.zeros(1, dtype=torch.bfloat16, requires_grad=True)
    hashed_values(pool, torch.zeros(1000, dtype=torch.int64)).sum().backward()
    assert float(pool.grad[0]) == 1000  # bfloat16 alone stops at 256
    layer = structures.fit("hashed", weight(16, 12).bfloat16(), 0.5)
    assert layer.pool.dtype == layer.dense().dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert structures.init("hashed", (6, 5), 0.5)(torch.randn(3, 5)).dtype == torch.bfloat16


def test_a_fresh_process_rebuilds_the_same_weight() -> None:
    layer = structures.init("hashed", (6, 5, 3), 0.3, seed=-4)
    code = ("import json, sys; from asrcompress.compression import structures; import torch;"
            "layer = structures.build('hashed', json.loads(sys.argv[1]));"
            "layer.load_state_dict({'pool': torch.arange(1., layer.buckets + 1)});"
            "print(layer.dense().flatten().tolist())")
    printed = subprocess.run([sys.executable, "-c", code, json.dumps(layer.spec())], capture_output=True, text=True,
                             check=True).stdout
    layer.load_state_dict({"pool": torch.arange(1.0, layer.buckets + 1)})
    assert json.loads(printed) == layer.dense().flatten().tolist()


def test_seeds_differ_and_copies_do_not() -> None:
    layer = structures.init("hashed", (30, 20), 0.2, seed=1)
    assert torch.equal(copy.deepcopy(layer).dense(), layer.dense())
    assert torch.equal(structures.init("hashed", (30, 20), 0.2, seed=1).dense(), layer.dense())
    other = structures.init("hashed", (30, 20), 0.2, seed=2)
    assert not torch.equal(other.indices, layer.indices) and not torch.equal(other.signs, layer.signs)
    with torch.device("meta"):
        assert Hashed((30, 20), 7).indices.is_meta


def test_from_scratch_has_the_variance_of_a_dense_start() -> None:
    for shape in ((256, 512), (128, 64, 3)):
        drawn = structures.init("hashed", shape, 0.5, seed=3).dense().detach()
        dense = torch.nn.Linear(math.prod(shape[1:]), shape[0]).weight.detach()
        assert float(drawn.std()) == pytest.approx(float(dense.std()), rel=0.02)
        assert float(drawn.abs().max()) <= float(dense.abs().max()) * 1.01


def test_size_is_kept_and_used() -> None:
    for shape in ((13, 11), (7, 5, 3)):
        for size in (0.5, 0.25, 0.0625):
            assert structures.fit("hashed", weight(*shape), size).num_parameters() == int(size * math.prod(shape))
    assert Hashed.min_parameters((13, 11), Hashed.Options(balanced=False)) == 1
    assert structures.fit("hashed", weight(13, 11), 1 / 143).num_parameters() == 1


def test_wrong_calls_are_user_errors() -> None:
    with pytest.raises(CannotShrink, match=r"cannot reach size 0.001; the smallest is 0.033, with 1 parameters"):
        structures.fit("hashed", weight(6, 5), 0.001)
    with pytest.raises(UserError, match="needs a size"):
        structures.init("hashed", (6, 5))
    spec = structures.init("hashed", (6, 5), 0.5).spec()
    for change in ({"buckets": 31}, {"hash": "md5"}):
        with pytest.raises(UserError):
            structures.build("hashed", {**spec, **change})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_same_weight() -> None:
    layer = structures.init("hashed", (64, 48), 0.25)
    assert torch.equal(copy.deepcopy(layer).cuda().dense().cpu(), layer.dense())
