"""Against numpy: explicit products, sums of Kronecker products, singular values, and finite differences."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from asrcompress.compression import Plan, compress, fold, load, modules, packed, record, save_model, structures
from asrcompress.compression.structures import CannotShrink, Scaled
from asrcompress.compression.structures.hashing._pool import Pool, cost, layout_and_rank, square
from asrcompress.compression.structures.hashing.multi_hash import MultiHash, MultiHashOptions
from asrcompress.errors import UserError
from asrcompress.measure import size as measured
from asrcompress.training.train import average
from tests.compression.models_of_tests import Net, net

WAYS = ("basic", "kronecker")


def allotted(size: float | None = None, **options: Any) -> structures.Allotment:
    return structures.Allotment(size, MultiHashOptions(**options))


def weight(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def drawn(entries: int, layout: tuple[int, int, int, int], rank: int) -> Pool:
    pool = Pool(entries, layout, rank)
    pool.draw(0)
    return pool.double()


def test_a_million_weights_at_a_tenth() -> None:
    layout, rank = layout_and_rank(10**6, 100_000)
    assert (layout, rank, rank * cost(layout)) == ((1000, 1, 1, 1000), 50, 100_000)
    entries = drawn(10**6, layout, rank).entries_between(0, 10**6)
    assert float(entries.detach().std()) == pytest.approx(1, abs=0.005)


def test_the_table_of_layer_sizes() -> None:
    least = square(2_000_000, "basic")
    assert least == (1414, 1, 1, 1415), "one row less than the authors' square, 1415 by 1415, which was not needed"
    assert layout_and_rank(2_000_000, 2_000_000 // 8)[1] == 88 and 88 * (cost(least) + 1) == 249_040


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("entries", [1, 7, 97, 1536, 7919, 786_432])
def test_a_pool_holds_its_weights_in_the_numbers_it_may_have(way: str, entries: int) -> None:
    for fraction in (0.75, 0.25, 0.0625):
        numbers = int(entries * fraction)
        layout, rank = layout_and_rank(entries, numbers, way)
        assert math.prod(layout) >= entries and 1 <= rank <= min(layout[0] * layout[1], layout[2] * layout[3])
        assert rank * cost(layout) <= max(numbers, cost(square(entries, way)))
        assert rank * cost(layout) > 0.95 * numbers or entries < 7919
        flat, low = layout_and_rank(entries, numbers, way, rank=4)
        assert low == min(rank, 4) and low * cost(flat) <= max(numbers, cost(square(entries, way)))
        assert low == rank or low * cost(flat) > 0.9 * numbers, "a lower rank leaves a wider pool"


def test_basic_is_the_product_row_by_row() -> None:
    pool = drawn(85, (9, 1, 1, 10), 3)
    product = (pool.left.detach().numpy() @ pool.right.detach().numpy()).ravel()
    np.testing.assert_allclose(pool.entries_between(0, 85).detach().numpy(), product[:85], atol=1e-12)


def test_kronecker_is_a_sum_of_numpys_kronecker_products() -> None:
    a, b, c, d = 3, 4, 5, 2
    pool = drawn(120, (a, b, c, d), 3)
    left, right = pool.left.detach().numpy(), pool.right.detach().numpy()
    total = sum(np.kron(left[:, r].reshape(a, b), right[r].reshape(c, d)) for r in range(3))
    np.testing.assert_allclose(pool.entries_between(0, 120).detach().numpy(), total.ravel(), atol=1e-12)


@pytest.mark.parametrize("layout", [(9, 1, 1, 10), (3, 3, 5, 2)])
def test_any_slice_is_that_of_the_whole(layout: tuple[int, int, int, int]) -> None:
    pool, scale = drawn(90, layout, 4), torch.tensor([0.5], dtype=torch.float64)
    whole = pool.entries_between(0, 90)
    for start in range(0, 90, 7):
        for stop in range(start + 1, 91, 5):
            torch.testing.assert_close(pool.entries_between(start, stop, scale), 0.5 * whole[start:stop])


@pytest.mark.parametrize("way", WAYS)
def test_the_fit_is_the_truncated_svd_of_the_rearranged_matrix(way: str) -> None:
    w, rank = weight(36, 36), 5
    layer = structures.fit("multi_hash", w, rank=rank, way=way)
    matrix = w.numpy()
    if way == "kronecker":  # Van Loan and Pitsianis, block by block
        matrix = np.stack([matrix[6 * i : 6 * i + 6, 6 * j : 6 * j + 6].ravel() for i in range(6) for j in range(6)])
    tail = np.linalg.svd(matrix, compute_uv=False)[rank:]
    assert float((layer.dense() - w).detach().norm()) == pytest.approx(np.linalg.norm(tail))


@pytest.mark.parametrize("way", WAYS)
def test_full_rank_is_the_weight(way: str) -> None:
    for shape in ((7, 5), (5, 11, 3), (1, 1)):
        w = weight(*shape)
        torch.testing.assert_close(structures.fit("multi_hash", w, rank=99, way=way).dense().detach(), w)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [0.5, 0.25, 0.125])
def test_size_is_kept_and_nearly_used(way: str, size: float) -> None:
    for shape in ((101, 61), (64, 61, 3)):
        layer = structures.fit("multi_hash", weight(*shape), size, way=way)
        assert 0.9 * size <= layer.num_parameters() / math.prod(shape) <= size
        assert layer.num_parameters() == sum(p.numel() for p in layer.parameters())
        assert layer.macs(3) == 3 * math.prod(shape)


def test_what_cannot_be_reached_says_the_smallest() -> None:
    smallest = MultiHash.min_parameters((60, 40), MultiHash.Options())
    assert smallest == 49 + 49 + 1 and MultiHash.min_parameters((60, 40), MultiHash.Options(rank=7)) == smallest
    assert structures.fit("multi_hash", weight(60, 40), smallest / 2400).num_parameters() == smallest
    with pytest.raises(CannotShrink, match="2,400 weights in 24 parameters; the smallest size is 0.041"):
        structures.fit("multi_hash", weight(60, 40), 0.01)


def test_wrong_options_are_user_errors() -> None:
    for options in ({}, {"rank": 0}, {"size": 0.5, "way": "sideways"}):
        with pytest.raises(UserError, match="multi_hash"):
            structures.fit("multi_hash", weight(6, 5), **options)
    good = structures.fit("multi_hash", weight(6, 5), rank=2).spec()
    for lie in ({"start": 1}, {"entries": 99}, {"layout": [1, 1, 1]}, {"rank": 0}, {"scales": 2}):
        with pytest.raises(UserError, match="cannot be built"):
            structures.build("multi_hash", {**good, **lie})


def test_gradients_are_those_of_a_product_and_of_finite_differences() -> None:
    layer = structures.fit("multi_hash", weight(6, 5), rank=3)
    gradient, scale = weight(6, 5, seed=1), float(layer.scale.detach())
    (layer.dense() * gradient).sum().backward()
    left, right = layer.pool.left, layer.pool.right
    torch.testing.assert_close(left.grad, scale * (gradient.view(left.shape[0], -1) @ right.detach().T))
    torch.testing.assert_close(right.grad, scale * (left.detach().T @ gradient.view(-1, right.shape[1])))
    for way in WAYS:
        layer, x = structures.fit("multi_hash", weight(4, 3, 2), rank=2, way=way), weight(2, 3, 6).requires_grad_()
        inputs = (x, layer.pool.left, layer.pool.right, layer.scale)
        assert torch.autograd.gradcheck(lambda *_, made=layer, x=x: (made.conv1d(x, padding=1), made.dense()), inputs)


@pytest.mark.parametrize("way", WAYS)
def test_from_scratch_has_the_variance_of_a_dense_start_and_is_seeded(way: str) -> None:
    for shape in ((256, 512), (128, 64, 3)):
        layer = structures.init("multi_hash", shape, 0.25, seed=3, way=way)
        drawn = layer.dense().detach()
        assert float(drawn.std()) == pytest.approx(1 / math.sqrt(3 * math.prod(shape[1:])), rel=0.05)
        assert torch.equal(drawn, structures.init("multi_hash", shape, 0.25, seed=3, way=way).dense())
        assert not torch.equal(drawn, structures.init("multi_hash", shape, 0.25, seed=4, way=way).dense())


def test_half_precision_and_autocast() -> None:
    w, x = weight(16, 12).bfloat16(), torch.randn(3, 12)
    layer = structures.fit("multi_hash", w, rank=14)
    assert {p.dtype for p in layer.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(layer.dense().detach().float(), w.float(), atol=0.1, rtol=0.05)
    layer = structures.fit("multi_hash", w.float(), rank=14).eval()
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            mixed = layer(x)
        exact = layer(x)  # what was kept in half precision is not used here
    torch.testing.assert_close(mixed.float(), exact, atol=0.2, rtol=0.05)
    torch.testing.assert_close(exact, functional.linear(x, layer.dense().detach()))


def test_rows_scale_in_place_and_biases_do_not() -> None:
    layer, scale, bias = structures.fit("multi_hash", weight(6, 5, 3), rank=4), weight(6, seed=9), weight(6, seed=8)
    x, expected = weight(2, 5, 9), layer.dense().detach() * scale[:, None, None]
    before = layer.num_parameters()
    assert layer.scale_rows(scale) and layer.num_parameters() == before + 5 and layer.spec()["scales"] == 6
    torch.testing.assert_close(layer.dense().detach(), expected)
    torch.testing.assert_close(layer.conv1d(x, bias=bias).detach(), functional.conv1d(x, expected, bias))


# One pool for a network.


@pytest.fixture(scope="module", params=WAYS)
def small(request: pytest.FixtureRequest) -> nn.Module:
    return compress(net(48), Plan("multi_hash", 0.4, budget="uniform", options={"way": request.param}))[0]


def pools(model: nn.Module) -> set[int]:
    return {id(structures.pooled(layer).tied_pool()) for layer in modules.structured(model).values()}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("size", [0.75, 0.4, 0.2])
@pytest.mark.parametrize("way", WAYS)
def test_the_model_gets_as_small_as_promised_and_the_report_counts_the_pool_once(size: float, way: str) -> None:
    model = net(96)
    small, report = compress(model, Plan("multi_hash", size, budget="uniform", options={"way": way}))
    assert 0.97 * size <= parameters(small) / parameters(model) <= size
    assert sum(row.before - row.after for row in report) == parameters(model) - parameters(small)
    assert measured.of_model(small)["parameters"] == parameters(small)
    assert measured.of_model(small)["dense_bytes"] == measured.of_model(model)["dense_bytes"]
    assert len(pools(small)) == 1 and all(0 < row.error < 1 for row in report if row.structure == "multi_hash")


def test_slices_cover_the_pool_once(small: nn.Module) -> None:
    found = [layer for layer in modules.structured(small).values() if isinstance(layer, MultiHash)]
    ends = [0, *(layer.stop for layer in found)]
    assert [layer.start for layer in found] == ends[:-1] and ends[-1] == found[0].pool.entries
    whole = found[0].pool.entries_between(0, ends[-1])
    torch.testing.assert_close(torch.cat([(layer.dense() / layer.scale).flatten() for layer in found]), whole)


def test_the_pool_is_the_best_for_the_layers_relative_to_their_scales() -> None:
    weights = {"a": weight(6, 10), "b": 100 * weight(8, 5, seed=1)}
    fitted = structures.fit_all("multi_hash", weights, dict.fromkeys(weights, allotted(rank=4)))
    stacked = np.concatenate([(w / w.square().mean().sqrt()).numpy().ravel() for w in weights.values()])
    u, s, vh = np.linalg.svd(stacked.reshape(10, 10))
    nearest = ((u[:, :4] * s[:4]) @ vh[:4]).ravel()
    for entries, w, layer in zip((nearest[:60], nearest[60:]), weights.values(), fitted.values(), strict=True):
        slope = np.linalg.lstsq(entries[:, None], w.numpy().ravel(), rcond=None)[0]
        np.testing.assert_allclose(layer.dense().detach().numpy().ravel(), slope * entries, atol=1e-10 * float(w.max()))


def test_weights_of_zeros_stay_zeros_and_tiny_layers_stay_dense() -> None:
    weights = {"a": weight(12, 12), "zeros": torch.zeros(12, 4, dtype=torch.float64), "tiny": weight(1, 2)}
    fitted = structures.fit_all("multi_hash", weights, dict.fromkeys(weights, allotted(0.6)))
    assert set(fitted) == {"a", "zeros"} and not fitted["zeros"].dense().any()
    stored = {id(p): p.numel() for layer in fitted.values() for p in layer.parameters()}
    assert sum(layer.num_parameters() for layer in fitted.values()) == sum(stored.values()) <= 0.6 * (144 + 48)
    assert structures.fit_all("multi_hash", {"tiny": weight(1, 2)}, {"tiny": allotted(rank=1)}) == {}
    mixed = {"a": weight(4, 4), "b": weight(4, 4).float()}
    with pytest.raises(UserError, match="differ in dtype"):
        structures.fit_all("multi_hash", mixed, dict.fromkeys(mixed, allotted(rank=1)))


def test_from_scratch_each_layer_has_the_variance_of_its_own_start() -> None:
    shapes = {"a": (128, 64, 3), "b": (200, 300)}
    made = structures.init_all("multi_hash", shapes, dict.fromkeys(shapes, allotted(0.2)), seed=1)
    for path, layer in made.items():
        start = 1 / math.sqrt(3 * math.prod(shapes[path][1:]))
        assert float(layer.dense().detach().std()) == pytest.approx(start, rel=0.05)
    assert structures.pooled(made["a"]).tied_pool() is structures.pooled(made["b"]).tied_pool()


def test_a_training_step_reaches_the_pool_from_every_layer(small: nn.Module) -> None:
    model = copy.deepcopy(small).train()
    assert len(pools(model)) == 1 and pools(model).isdisjoint(pools(small))
    model(torch.randn(2, 16, 20)).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    pool = next(iter(modules.structured(model).values())).pool
    assert pool.left.grad.abs().sum(1).gt(0).all(), "every row of the pool belongs to some layer"
    torch.optim.SGD(model.parameters(), 1e-3).step()


def test_every_kind_of_file_holds_the_pool_once_and_ties_it_again(small: nn.Module, tmp_path: Path) -> None:
    x = torch.randn(2, 16, 20)
    save_model(tmp_path / "m.safetensors", small, Net)
    packed.save(tmp_path / "m.packed", small, build=Net)
    numbers = measured.of_model(fold(small))["numbers"]
    assert sum(row["parameters"] for row in packed.info(tmp_path / "m.packed")) == numbers
    assert [row["name"] for row in packed.info(tmp_path / "m.packed") if "pool" in row["name"]] == [
        "convs.0.structure.pool.left", "convs.0.structure.pool.right"]
    assert 4 * numbers < (tmp_path / "m.packed").stat().st_size < 4 * numbers + 4000
    again, unpacked = load(tmp_path / "m.safetensors", Net), load(tmp_path / "m.packed", Net)
    assert len(pools(again)) == len(pools(unpacked)) == 1
    assert torch.equal(again(x), small.eval()(x)) and again.config == small.config
    torch.testing.assert_close(unpacked(x), small(x), rtol=1e-4, atol=1e-5)
    assert measured.of_model(unpacked)["numbers"] == numbers and parameters(again) == parameters(small)


def test_checkpoints_that_hold_the_pool_under_every_layer_average(small: nn.Module, tmp_path: Path) -> None:
    model, paths = copy.deepcopy(small), []
    for number in (1.0, 2.0, 6.0):
        for parameter in model.parameters():
            nn.init.constant_(parameter, number)
        paths.append(tmp_path / f"{number}.ckpt")
        torch.save({"state_dict": {f"model.{name}": tensor for name, tensor in model.state_dict().items()}}, paths[-1])
    average(paths, model)
    assert all(bool((parameter == 3).all()) for parameter in model.parameters()) and len(pools(model)) == 1


def test_two_pools_of_one_model_stay_two(tmp_path: Path) -> None:
    def half(model: nn.Module, *paths: str) -> nn.Module:
        return compress(model, Plan("multi_hash", None, include=paths, options={"rank": 4}))[0]

    twice = half(half(net(), "convs.0", "convs.1"), "convs.2.weight", "output")
    assert len(pools(twice)) == 2
    save_model(tmp_path / "m.safetensors", twice, Net)
    again, x = load(tmp_path / "m.safetensors", Net), torch.randn(2, 16, 20)
    assert len(pools(again)) == 2 and torch.equal(again(x), twice.eval()(x))


def test_wrapped_layers_share_and_count_too() -> None:
    weights = {"a": weight(6, 10), "b": weight(6, 10, seed=1)}
    fitted = structures.fit_all("multi_hash", weights, dict.fromkeys(weights, allotted(rank=3)))
    model = nn.ModuleDict({path: nn.Linear(10, 6, bias=False).double() for path in weights})
    model.config = {}
    for path, layer in fitted.items():
        modules.replace_layer(model, path, Scaled(layer, weight(6, seed=2)))
    assert measured.of_model(model)["parameters"] == parameters(model) and len(pools(model)) == 1
    made = record.build_layers(json.loads(json.dumps(record.layers(model))))
    assert structures.pooled(made["a"]).tied_pool() is structures.pooled(made["b"]).tied_pool()


def test_a_config_that_ties_what_does_not_fit_is_a_user_error(small: nn.Module) -> None:
    first, second, *_ = record.layers(small)
    for path, change in ((second, {"shares": "nothing"}), (second, {"rank": 1}), (first, {"shares": first}),
                         (second, {"structure": "svd", "rank": 2, "unfolding": "input"})):
        entries = copy.deepcopy(record.layers(small))
        entries[path].update(change)
        with pytest.raises(UserError, match="share|cannot be built|no option 'layout'"):
            record.build_layers(entries)
