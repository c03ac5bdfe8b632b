"""Against numpy: products, means and singular values; and one shared matrix in models, files and gradients."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from asrcompress import models
from asrcompress.compression import Plan, compress, load, modules, packed, save_model, structures
from asrcompress.compression.structures import CannotShrink
from asrcompress.compression.structures.sharing._groups import neighbours
from asrcompress.compression.structures.sharing.tied import TiedOptions
from asrcompress.errors import UserError
from asrcompress.measure import size as measured
from tests.compression.models_of_tests import tied

SHAPES = {"matrix": (12, 10), "square": (9, 9), "kernel": (8, 6, 3)}


def weight(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def together(weights: dict[str, Tensor], **options: int | bool) -> dict[str, structures.Structure]:
    return structures.fit_all("tied", weights, dict.fromkeys(weights, structures.Allotment(None,
                                                                                           TiedOptions(**options))))


def blocks(*shape: int, count: int) -> dict[str, Tensor]:
    return {f"blocks.{i}.up": weight(*shape, seed=i) for i in range(count)}


def lost(layers: dict[str, structures.Structure], weights: dict[str, Tensor]) -> float:
    return sum(float((layers[path].dense().detach() - w).square().sum()) for path, w in weights.items())


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("diagonal", [False, True])
def test_the_weight_is_the_sum_of_its_parts_and_the_layer_its_product(kind: str, diagonal: bool) -> None:
    shape = SHAPES[kind]
    layer = structures.init("tied", shape, rank=3, diagonal=diagonal).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    shared, left, right = (p.detach().numpy() for p in (layer.pool.weight, layer.left, layer.right))
    expected = shared + (left @ right).reshape(shape)
    if diagonal and kind == "square":
        expected = expected + np.diag(layer.diagonal.detach().numpy())
    else:
        assert layer.diagonal is None
    np.testing.assert_allclose(layer.dense().detach().numpy(), expected, atol=1e-12)
    x, bias = weight(2, shape[1], 7), weight(shape[0], seed=1)
    if len(shape) == 2:
        y, wanted = layer(x.mT, bias), np.einsum("oi,nit->nto", expected, x.numpy()) + bias.numpy()
    else:
        y = layer.conv1d(x, padding=1, bias=bias).mT
        frames = np.lib.stride_tricks.sliding_window_view(np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1))), 3, 2)
        wanted = np.einsum("oik,nitk->nto", expected, frames) + bias.numpy()
    np.testing.assert_allclose(y.detach().numpy(), wanted, atol=1e-12)
    assert layer.macs(5) == 5 * math.prod(shape), "the work is that of a dense layer"


def test_span_one_is_dense_plus_low_rank_and_so_never_smaller() -> None:
    w = weight(12, 10)
    layer = structures.fit("tied", w, rank=3)
    assert layer.num_parameters() == 120 + 3 * 22 == sum(p.numel() for p in layer.parameters())
    torch.testing.assert_close(layer.dense().detach(), w)
    assert all(p.detach().norm() > 0.1 for p in layer.parameters()), "no factor is stuck at zero"
    with pytest.raises(UserError, match="makes no layer smaller at span 1 and rank 3"):
        together(blocks(12, 10, count=4), span=1, rank=3)


@pytest.mark.parametrize("span", [2, 4, 8])
def test_what_was_tied_is_found_again(span: int) -> None:
    shared = weight(30, 24)
    weights = {f"blocks.{i}.up": shared + weight(30, 2, seed=2 * i + 1) @ weight(2, 24, seed=2 * i + 2)
               for i in range(span)}
    layers = together(weights, span=span, rank=2, sweeps=200)
    assert lost(layers, weights) < 1e-4 * sum(float(w.square().sum()) for w in weights.values())
    equal = dict.fromkeys(weights, shared)
    assert lost(together(equal, span=span, rank=0), equal) < 1e-20


@pytest.mark.parametrize("options", [{"rank": 3}, {"rank": 3, "diagonal": True}, {"rank": 0, "diagonal": True}])
@pytest.mark.parametrize("shape", [(16, 16), (16, 8, 3)])
@pytest.mark.parametrize("span", [2, 3])
def test_the_error_never_rises(span: int, shape: tuple[int, ...], options: dict) -> None:
    weights = blocks(*shape, count=span)
    errors = [lost(together(weights, span=span, sweeps=n, **options), weights) for n in (1, 2, 3, 5, 8, 13)]
    assert all(after <= before * (1 + 1e-12) for before, after in zip(errors, errors[1:], strict=False))
    mean = np.mean([w.numpy() for w in weights.values()], 0)
    alone = sum(float(((w.numpy() - mean) ** 2).sum()) for w in weights.values())
    has_own = options["rank"] or len(shape) == 2
    assert errors[-1] < alone if has_own else errors[-1] == pytest.approx(alone), "better than the mean alone"


def test_at_rank_zero_what_is_shared_is_the_mean() -> None:
    weights = blocks(6, 5, count=3)
    layers = together(weights, span=3, rank=0)
    for layer in layers.values():
        np.testing.assert_allclose(layer.dense().detach().numpy(), np.mean([w.numpy() for w in weights.values()], 0))
        assert layer.left is None and [name for name, _ in layer.named_parameters()] == ["pool.weight"]


def test_a_group_is_neighbours_of_one_shape_that_differ_in_the_blocks_number() -> None:
    tdnn = {"layers.0.conv": (8, 4, 5), "layers.1.conv": (9, 8, 3),
            **{f"layers.{i}.conv": (9, 9, 3) for i in (10, 11, 12, *range(2, 10))}}
    assert neighbours(tdnn, 4) == [["layers.0.conv"], ["layers.1.conv"], [f"layers.{i}.conv" for i in (2, 3, 4, 5)],
                                   [f"layers.{i}.conv" for i in (6, 7, 8, 9)], [f"layers.{i}.conv"
                                                                               for i in (10, 11, 12)]]
    within = {f"blocks.{i}.ff.{j}": (4, 4) for i in range(3) for j in (0, 3)}
    assert neighbours(within, 2) == [["blocks.0.ff.0", "blocks.1.ff.0"], ["blocks.2.ff.0"],
                                     ["blocks.0.ff.3", "blocks.1.ff.3"], ["blocks.2.ff.3"]]
    assert neighbours({"a": (4, 4), "b": (4, 4), "0.a": (4, 4), "1.a": (5, 4)}, 2) == [["a"], ["b"], ["0.a"], ["1.a"]]


def test_the_largest_rank_that_a_size_allows() -> None:
    shapes = {**{f"blocks.{i}.up": (24, 16) for i in range(4)}, "front": (24, 16)}
    for size in (0.7, 0.8):
        given = dict.fromkeys(shapes, structures.Allotment(size, TiedOptions(span=2)))
        made = structures.init_all("tied", shapes, given)
        stored = sum({id(p): p.numel() for one in made.values() for p in one.parameters()}.values())
        assert set(made) == set(shapes) - {"front"} and len({one.rank for one in made.values()}) == 1
        assert stored + 384 <= size * 5 * 384 < stored + 384 + 4 * 40, "one more rank would not fit"
        assert sum(one.num_parameters() for one in made.values()) == stored
    with pytest.raises(CannotShrink, match="in 768 parameters; at span 2 the fewest are 1,152"):
        structures.init_all("tied", shapes, dict.fromkeys(shapes, structures.Allotment(0.4, TiedOptions(span=2))))


def test_mistakes_are_sentences() -> None:
    w = weight(6, 6)
    for options in ({"span": 0}, {"rank": -1}, {"sweeps": 0}, {}):
        with pytest.raises(UserError, match="tied"):
            structures.fit("tied", w, **options)
    with pytest.raises(CannotShrink, match="one layer alone"):
        structures.fit("tied", w, 0.5)
    both = dict.fromkeys(blocks(6, 6, count=2), structures.Allotment(0.6, TiedOptions(rank=1)))
    with pytest.raises(UserError, match="exactly one of size and rank"):
        structures.fit_all("tied", blocks(6, 6, count=2), both)
    with pytest.raises(UserError, match="differ in dtype"):
        together({"blocks.0.up": w, "blocks.1.up": w.float()}, rank=1)
    good = structures.fit("tied", w, rank=2).spec()
    for lie in ({"rank": 7}, {"member": 1}, {"shape": [6, 5], "diagonal": True}):
        with pytest.raises(UserError, match="cannot be built"):
            structures.build("tied", {**good, **lie})


def test_from_scratch_the_shared_part_has_the_variance_of_a_dense_start() -> None:
    shapes = {f"layers.{i}": (256, 128, 3) for i in range(4)}
    given = dict.fromkeys(shapes, structures.Allotment(None, TiedOptions(span=2, rank=16)))
    made = structures.init_all("tied", shapes, given, seed=3)
    variance = 1 / (3 * 128 * 3)
    for layer in made.values():
        assert float(layer.pool.weight.detach().var()) == pytest.approx(variance, rel=0.05)
        own = layer.dense() - layer.pool.weight
        assert float(own.detach().var()) == pytest.approx(0.1 * variance, rel=0.15)
    one, two, three, _ = made.values()
    assert one.pool is two.pool and one.pool is not three.pool and not torch.equal(one.dense(), two.dense())
    again = structures.init_all("tied", shapes, given, seed=3)
    assert all(torch.equal(layer.dense(), again[path].dense()) for path, layer in made.items())


# In models.


def conformer(**options: int) -> models.AcousticModel:
    torch.manual_seed(0)
    return models.build({"model": "conformer", "features": 80, "vocab": 7, "dim": 16, "heads": 2, "hidden": 32,
                         "kernel": 3, "blocks": 4, "front": 16, **options})


def tdnn() -> models.AcousticModel:
    torch.manual_seed(0)
    stack = [{"dim": 12, "taps": 5, "stride": 2}, {"dim": 16, "taps": 3, "stride": 2}, {"dim": 16, "taps": 3,
                                                                                        "repeat": 5}]
    return models.build({"model": "tdnn", "features": 80, "vocab": 7, "stack": stack})


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def pools(model: nn.Module) -> int:
    return len({id(structures.pooled(layer).tied_pool()) for layer in modules.structured(model).values()})


@pytest.mark.parametrize(("span", "rank", "share"), [(2, 8, 0.61), (4, 8, 0.37), (8, 8, 0.26), (4, 0, 0.30)])
def test_the_sizes_of_the_conformer(span: int, rank: int, share: float) -> None:
    model = models.build({"model": "conformer", "vocab": 40})  # conf/model/conformer.yaml
    dense = parameters(model)
    tied(model, span=span, rank=rank)
    block = 4 * 576 * 144 + 7 * 144 * 144
    own = rank * (4 * (576 + 144) + 5 * 288 + (288 + 144))
    assert dense == 4_085_704 and parameters(model) == dense - 8 * block + 8 // span * block + 8 * own
    assert parameters(model) / dense == pytest.approx(share, abs=0.005) and pools(model) == 10 * 8 // span
    assert measured.of_model(model)["parameters"] == parameters(model)


@pytest.mark.parametrize("make", [conformer, tdnn])
@pytest.mark.parametrize("options", [{"span": 2, "rank": 3}, {"span": 4, "rank": 0}, {"span": 4, "rank": 2,
                                                                                     "diagonal": True}])
def test_both_files_hold_what_is_shared_once_and_tie_it_again(make, options: dict, tmp_path: Path) -> None:
    model = tied(make(), **options).eval()
    save_model(tmp_path / "m.safetensors", model)
    packed.save(tmp_path / "m.packed", model)
    names = [row["name"] for row in packed.info(tmp_path / "m.packed") if ".pool." in row["name"]]
    assert len(names) == pools(model) and 4 * parameters(model) < (tmp_path / "m.safetensors").stat().st_size
    again, unpacked = load(tmp_path / "m.safetensors"), load(tmp_path / "m.packed")
    assert parameters(again) == parameters(model) and pools(again) == pools(unpacked) == pools(model)
    stored = sum(row["bytes"] for row in packed.info(tmp_path / "m.packed")[1:-1])
    assert stored == 4 * sum(parameter.numel() for parameter in unpacked.parameters())
    x, lens = torch.randn(2, 60, 80), torch.tensor([60, 41])
    with torch.no_grad():
        assert torch.equal(again(x, lens)[0], model(x, lens)[0])
        torch.testing.assert_close(unpacked(x, lens)[0], model(x, lens)[0], rtol=1e-4, atol=1e-4)


def test_the_gradient_of_what_is_shared_is_the_sum_of_its_layers_gradients() -> None:
    model = tied(conformer(dropout=0, stochastic_depth=0), span=2, rank=2).eval()
    twin = conformer(dropout=0, stochastic_depth=0).eval()
    for name, parameter in twin.named_parameters():
        owner = name.removesuffix(".weight")
        layer = modules.structured(model).get(owner)
        parameter.data.copy_(model.get_parameter(name) if layer is None else layer.dense().detach())
    x, lens = torch.randn(2, 60, 80), torch.tensor([60, 41])
    for one in (model, twin):
        one(x, lens)[0][..., 1].sum().backward()
    layers = modules.structured(model)
    for path, layer in layers.items():
        group = [other for other, one in layers.items() if one.pool is layer.pool]
        expected = sum(twin.get_submodule(other).weight.grad for other in group)
        assert len(group) == 2
        torch.testing.assert_close(layer.pool.weight.grad, expected, rtol=1e-3, atol=1e-5)
        own = twin.get_submodule(path).weight.grad
        torch.testing.assert_close(layer.left.grad, own @ layer.right.detach().T, rtol=1e-3, atol=1e-5)


def test_a_model_that_no_one_here_wrote() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
    dense = parameters(model)
    small = tied(copy.deepcopy(model), span=2, rank=2).eval()
    found = modules.structured(small)
    assert set(found) == {f"layers.{i}.{name}" for i in range(4) for name in (
        "self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1", "linear2")}
    half, own = 2 * (48 * 16 + 16 * 16 + 2 * 32 * 16), 4 * 2 * ((48 + 16) + (16 + 16) + 2 * (32 + 16))
    assert pools(small) == 8 and parameters(small) == dense - half + own
    twin, x = model.eval(), torch.randn(2, 5, 16)
    for path, layer in found.items():
        twin.get_parameter(path if path.endswith("weight") else f"{path}.weight").data.copy_(layer.dense().detach())
    torch.testing.assert_close(small(x), twin(x))


def test_quantization_rounds_what_is_shared_once(tmp_path: Path) -> None:
    model = tied(conformer(), span=2, rank=3).eval()
    small, _ = compress(model, quantization="int8")
    assert pools(small) == pools(model)
    packed.save(tmp_path / "m.packed", small)
    rows = [row for row in packed.info(tmp_path / "m.packed") if ".pool." in row["name"]]
    assert len(rows) == pools(model) and {row["quantization"] for row in rows} == {"int8"}
    assert pools(load(tmp_path / "m.packed")) == pools(model)


def test_a_trained_model_is_refused() -> None:
    for call in (lambda: compress(conformer(), "tied", rank=2), lambda: compress(conformer(), Plan("tied", 0.6))):
        with pytest.raises(UserError, match="as unlike as random matrices.*0.7071.*schedule=scratch, or with "
                                            "schedule=pull$"):
            call()
    one, two = (functional.normalize(torch.randn(144 * 144, generator=torch.Generator().manual_seed(i)), dim=0)
                for i in (1, 2))
    assert float((one - (one + two) / 2).norm()) == pytest.approx(0.7071, abs=0.01), "what the sentence says of those"
