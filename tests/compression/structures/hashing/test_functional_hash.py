"""Against `hashed`, numpy's lstsq, explicit loops, finite differences, and a fresh process."""

import copy
import json
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from asrcompress.compression import structures
from asrcompress.compression.structures import CannotShrink
from asrcompress.compression.structures.fitting import least_squares
from asrcompress.compression.structures.hashing import _fetching
from asrcompress.compression.structures.hashing.functional_hash import NEXT, SECOND, FunctionalHash
from asrcompress.compression.structures.tables import hash_indices, hash_signs
from asrcompress.errors import UserError

KINDS: list[dict[str, Any]] = [{}, {"reconstruction": "mlp"}, {"dual_space": True}, {"multi_hop": True},
                               {"reconstruction": "mlp", "dual_space": True, "multi_hop": True, "balanced": False}]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def member(shape: tuple[int, ...], size: float, **options: Any) -> FunctionalHash:
    """One in float64 with random numbers everywhere."""
    layer = structures.init("functional_hash", shape, size, seed=5, **options).double()
    with torch.no_grad():
        for seed, numbers in enumerate(layer.parameters()):
            numbers.copy_(random(*numbers.shape, seed=seed))
    assert isinstance(layer, FunctionalHash)
    return layer


@pytest.mark.parametrize("balanced", [True, False])
def test_one_fetch_is_hashed_bit_for_bit(balanced: bool) -> None:
    options = {"seed": 3, "balanced": balanced}
    for shape in ((24, 16), (7, 5, 3)):
        ours = structures.init("functional_hash", shape, 0.3, hashes=1, **options)
        theirs = structures.init("hashed", shape, 0.3, **options)
        assert torch.equal(ours.dense(), theirs.dense()) and ours.num_parameters() == theirs.num_parameters()
        w = random(*shape)
        fits = [structures.fit(name, w, 0.3, **options, **more).dense().detach()
                for name, more in (("functional_hash", {"hashes": 1}), ("hashed", {}))]
        torch.testing.assert_close(*fits)


def test_a_linear_g_is_the_sum_of_hashed_layers() -> None:
    layer = member((12, 10), 0.4, hashes=3)
    total = torch.zeros(12, 10, dtype=torch.float64)
    for u, coefficient in enumerate(layer.net[0]):
        one = structures.init("hashed", (12, 10), layer.pool.numel() / 120, seed=5 + u * NEXT).double()
        one.load_state_dict({"pool": layer.pool})
        total += coefficient.detach() * one.dense().detach()
    torch.testing.assert_close(layer.dense().detach(), total)


@pytest.mark.parametrize("options", KINDS)
def test_it_is_the_formula_entry_by_entry(options: dict[str, Any]) -> None:
    """As the docstring says it, the hashes taken from `_hashing`; every pool is smaller than a piece of `hashed`."""
    layer = member((6, 5, 2), 0.8, hashes=3, **options)
    pool, weight = layer.pool.detach().numpy(), layer.dense().detach().numpy().ravel()
    balanced = options.get("balanced", True)
    for e in range(60):
        values, bucket = [], 0
        for u in range(3):
            seed = 5 + u * NEXT
            own = int(hash_indices(seed, 60, len(pool), balanced)[e])
            if u and options.get("multi_hop"):
                shift = int(hash_indices(seed, 6, len(pool), False)[e // 10])
                own = int(hash_indices(seed + NEXT // 2, len(pool), len(pool), True)[(bucket + shift) % len(pool)])
            bucket = own
            values.append(float(hash_signs(seed, 60)[e]) * pool[own])
            if layer.mixing is not None:
                second = hash_indices(seed + SECOND, 60, len(layer.mixing), balanced)
                values[-1] *= float(layer.mixing[int(second[e])].detach())
        net = [numbers.detach().numpy() for numbers in layer.net]
        if len(net) == 1:
            expected = net[0] @ values
        else:
            hidden, output = net
            units = np.tanh(hidden[:, :3] @ values / layer.scale + hidden[:, 3])
            expected = layer.scale * (output[:-1] @ units + output[-1])
        assert weight[e] == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("options", [{"hashes": 1}, *KINDS])
def test_gradients_over_several_chunks(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fetching, "CHUNK", 7)
    layer = member((5, 4), 1.0, **{"hashes": 2, "hidden": 2, **options})
    layer.scale = 1.0
    assert torch.autograd.gradcheck(lambda *_: layer.dense(), tuple(layer.parameters()))


@pytest.mark.parametrize("options", KINDS)
def test_chunks_change_nothing(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    layer = member((20, 11), 0.5, **options)
    found = []
    for chunk in (1000, 37):
        monkeypatch.setattr(_fetching, "CHUNK", chunk)
        layer.zero_grad()
        layer.dense().square().sum().backward()
        found.append([layer.dense().detach(), *(p.grad for p in layer.parameters())])
    for whole, cut in zip(*found, strict=True):
        torch.testing.assert_close(whole, cut)


def test_conjugate_gradients_find_numpys_least_squares() -> None:
    matrix, target = random(40, 15), random(40, seed=1)
    solution = np.linalg.lstsq(matrix.numpy(), target.numpy(), rcond=None)[0]
    np.testing.assert_allclose(least_squares(lambda x: matrix @ x, target, 15).numpy(), solution, atol=1e-9)
    assert not least_squares(lambda x: matrix @ x, 0 * target, 15).any()


def test_a_linear_fit_is_numpys_least_squares_for_its_coefficients() -> None:
    w = random(16, 12)
    layer = structures.fit("functional_hash", w, 0.3, hashes=2)
    design = np.zeros((192, layer.pool.numel()))
    for u, coefficient in enumerate(layer.net[0].detach().numpy()):
        np.add.at(design, (np.arange(192), layer.indices[u].numpy()), coefficient * layer.signs[u].numpy())
    best = np.linalg.lstsq(design, w.numpy().ravel(), rcond=None)[0]
    error = float((layer.dense() - w).detach().norm())
    assert error == pytest.approx(np.linalg.norm(design @ best - w.numpy().ravel()), rel=1e-4)


@pytest.mark.parametrize("options", KINDS)
def test_a_fit_keeps_at_least_about_the_share_of_energy_that_it_stores(options: dict[str, Any]) -> None:
    w = random(64, 48)
    layer = structures.fit("functional_hash", w, 0.25, **options)
    error = float((layer.dense() - w).detach().norm() / w.norm())
    assert error < math.sqrt(1 - 0.25) + 0.01
    larger = structures.fit("functional_hash", 1024 * w, 0.25, **options).dense().detach()
    torch.testing.assert_close(larger / 1024, layer.dense().detach())
    assert structures.fit("functional_hash", torch.zeros(8, 8), 0.9, **options).dense().abs().max() < 1e-6


@pytest.mark.parametrize("options", KINDS)
def test_size_is_kept_and_used(options: dict[str, Any]) -> None:
    for shape in ((40, 30), (101, 7, 3)):
        for size in (0.5, 0.25, 0.0625):
            layer = structures.init("functional_hash", shape, size, **options)
            assert layer.num_parameters() == int(size * math.prod(shape))
    smallest = FunctionalHash.min_parameters((60, 40), FunctionalHash.Options(**options))
    assert structures.init("functional_hash", (60, 40), smallest / 2400, **options).num_parameters() == smallest
    with pytest.raises(CannotShrink, match="cannot reach size 0.0004; the smallest is"):
        structures.init("functional_hash", (60, 40), 0.0004, **options)


@pytest.mark.parametrize("options", KINDS)
def test_from_scratch_has_the_variance_of_a_dense_start_and_is_seeded(options: dict[str, Any]) -> None:
    for shape in ((256, 128), (64, 64, 3)):
        make = [structures.init("functional_hash", shape, 0.4, seed, **options).dense().detach() for seed in (3, 3, 4)]
        assert float(make[0].std()) == pytest.approx(1 / math.sqrt(3 * math.prod(shape[1:])), rel=0.05)
        assert torch.equal(make[0], make[1]) and not torch.equal(make[0], make[2])


def test_several_fetches_give_weights_of_far_more_values() -> None:
    """64 numbers and 20,000 weights: at most 128 values with one fetch, about 64^2 x 2 and 20,000 with two and four."""
    sizes = {1: 64, 2: 66, 4: 68}  # with the coefficients
    counts = [len(member((200, 100), sizes[u] / 20_000, hashes=u).dense().detach().unique()) for u in sizes]
    assert counts[0] <= 128 and 5_000 < counts[1] < 16_400 and counts[2] > 19_900


def test_hops_stay_balanced_and_differ() -> None:
    layer = member((60, 50), 0.1, hashes=3, multi_hop=True)
    buckets = layer.pool.numel()
    for row in layer.indices:
        loads = torch.bincount(row, minlength=buckets)
        assert loads.min() > 0 and loads.max() < 4 * loads.float().mean()
    pairs = layer.indices[0].long() * buckets + layer.indices[1]
    assert len(pairs.unique()) > 2500, "the second hop adds to what the first one says"


def test_nothing_that_can_be_made_again_is_stored_and_a_fresh_process_makes_it() -> None:
    layer = structures.init("functional_hash", (12, 10), 0.5, seed=2**40 + 7, dual_space=True, multi_hop=True)
    assert set(layer.state_dict()) == {"pool", "mixing", "net.0"}
    spec = json.dumps(layer.spec())
    code = ("import json, sys, torch; from asrcompress.compression import structures;"
            "layer = structures.build('functional_hash', json.loads(sys.argv[1]));"
            "layer.pool.data.copy_(torch.arange(len(layer.pool)));"
            "layer.mixing.data.copy_(torch.arange(len(layer.mixing)));"
            "print(layer.dense().detach().flatten().tolist())")
    printed = subprocess.run([sys.executable, "-c", code, spec], capture_output=True, text=True, check=True).stdout
    with torch.no_grad():
        for numbers in (layer.pool, layer.mixing):
            numbers.copy_(torch.arange(len(numbers)))
    assert json.loads(printed) == layer.dense().flatten().tolist()
    assert torch.equal(copy.deepcopy(layer).dense(), layer.dense())
    with torch.device("meta"):
        assert structures.build("functional_hash", layer.spec()).indices.is_meta
    with pytest.raises(UserError, match="md5"):
        structures.build("functional_hash", {**layer.spec(), "hash": "md5"})


def test_wrong_options_are_user_errors() -> None:
    for options in ({"hashes": 0}, {"hidden": 0, "reconstruction": "mlp"}, {"reconstruction": "magic"}, {"size": None}):
        with pytest.raises(UserError, match="functional_hash"):
            structures.fit("functional_hash", random(6, 5), **{"size": 0.5, **options})
    for wrong in ({"buckets": 0}, {"hashes": 1 << 20}, {"hidden": 1 << 30, "reconstruction": "mlp"}):
        with pytest.raises(UserError, match="no pools"):
            structures.build("functional_hash", {"shape": [6, 6], "buckets": 9, "hash": "splitmix64-1", **wrong})


@pytest.mark.parametrize("options", KINDS)
def test_half_precision_weights_keep_their_dtype_and_autocast_changes_nothing(options: dict[str, Any]) -> None:
    layer = structures.fit("functional_hash", random(16, 12).bfloat16(), 0.5, **options)
    assert {numbers.dtype for numbers in layer.parameters()} == {layer.dense().dtype} == {torch.bfloat16}
    layer(torch.randn(3, 12).bfloat16()).sum().backward()
    assert all(numbers.grad.dtype == torch.bfloat16 for numbers in layer.parameters())
    layer = structures.init("functional_hash", (16, 12), 0.5, **options)
    with torch.autocast("cpu", torch.bfloat16):
        kept = layer.dense()
        assert layer(torch.randn(3, 12)).dtype == torch.bfloat16
    assert torch.equal(kept, layer.dense())
