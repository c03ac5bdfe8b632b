import copy
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from asrcompress.compression import StructuredConv1d, compress, load, modules, record, save, structures
from asrcompress.errors import UserError
from tests.compression.structures.checks import alone


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.twin = nn.Linear(8, 12), nn.Linear(8, 12)
        self.twin.weight = self.linear.weight
        self.conv = nn.Conv1d(8, 12, 3, stride=2, padding=1)
        self.reflect = nn.Conv1d(8, 12, 3, padding=1, padding_mode="reflect")
        self.grouped = nn.Conv1d(8, 12, 3, groups=2, padding="same")
        self.image = nn.Conv2d(2, 12, (3, 5), bias=False)
        self.bare = nn.Parameter(torch.randn(8, 12))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.embedding, self.recurrent, self.norm = nn.Embedding(9, 8), nn.LSTM(8, 8), nn.LayerNorm((4, 8))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(N, 8, T) -> what comes out of every part that can be structured."""
        rows = x.transpose(1, 2)
        return [self.conv(x), self.reflect(x), self.grouped(x), self.image(x.unflatten(1, (2, 4))), rows @ self.bare,
                self.attention(rows, rows, rows)[0], self.linear(rows), self.twin(rows)]


def test_every_weight_is_found_once_with_its_reason() -> None:
    found = {path: (tuple(weight.shape), why) for path, weight, why in modules.weights(Mixed())}
    assert found == {
        "linear.weight": ((12, 8), ""),  # tied to that of twin
        "conv": ((12, 8, 3), ""), "reflect.weight": ((12, 8, 3), ""), "grouped.weight": ((12, 4, 3), ""),
        "image.weight": ((12, 2, 15), ""), "bare": ((8, 12), ""), "attention.in_proj_weight": ((24, 8), ""),
        "attention.out_proj.weight": ((8, 8), ""), "embedding.weight": ((9, 8), "Embedding stays dense"),
        "recurrent.weight_ih_l0": ((32, 8), "LSTM stays dense"),
        "recurrent.weight_hh_l0": ((32, 8), "LSTM stays dense"),
        "norm.weight": ((4, 8), "LayerNorm stays dense"), "norm.bias": ((4, 8), "LayerNorm stays dense"),
    }


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_any_module_computes_with_the_structure(mode: str) -> None:
    torch.manual_seed(0)
    model = Mixed()
    dense = copy.deepcopy(model)
    parameters = dict(dense.named_parameters())
    for path, weight, why in list(modules.weights(model)):
        if not why:
            layer = structures.fit("svd", weight, rank=2)
            modules.replace_layer(model, path, layer)
            target = parameters[path] if path in parameters else parameters[f"{path}.weight"]
            target.data.copy_(layer.dense().reshape(target.shape))
    x = torch.randn(2, 8, 9)
    with torch.set_grad_enabled(mode == "train"):
        for ours, theirs in zip(model.train(mode == "train")(x), dense.train(mode == "train")(x), strict=True):
            torch.testing.assert_close(ours, theirs)
    assert sorted(modules.structured(model)) == sorted(path for path, _, why in modules.weights(Mixed()) if not why)
    assert all(why for _, _, why in modules.weights(model)), "nothing is offered twice"
    names = [name for name, _ in model.named_parameters()]
    assert not any("original" in name for name in names), "no dense weight is kept"
    assert isinstance(model.conv, StructuredConv1d) and model.conv.macs(7) == model.conv.structure.macs(7, 2)
    assert model.twin.parametrizations.weight[0] is model.linear.parametrizations.weight[0]


@pytest.mark.parametrize("family", structures.names())
def test_a_convolution_takes_one_utterance_without_a_batch(family: str) -> None:
    conv = nn.Conv1d(8, 12, 3, padding=1)
    layer = alone(family, conv.weight, 0.6)
    ours, x = StructuredConv1d(layer, conv.bias, padding=1), torch.randn(8, 9)
    assert ours(x).shape == conv(x).shape
    torch.testing.assert_close(ours(x), ours(x[None])[0])


def test_restore_makes_the_same_modules() -> None:
    model = Mixed()
    for path, weight, why in list(modules.weights(model)):
        if not why:
            modules.replace_layer(model, path, structures.fit("svd", weight, rank=2))
    again = record.apply_config(Mixed(), record.record_config(model))
    again.load_state_dict(model.state_dict())
    x = torch.randn(2, 8, 9)
    assert all(torch.equal(a, b) for a, b in zip(model.eval()(x), again.eval()(x), strict=True))


def test_a_layer_that_is_not_there_or_has_another_shape_is_a_user_error() -> None:
    spec = {"structure": "svd", "shape": [12, 8], "rank": 2}
    for path in ("nothing", "conv.nothing", "conv", "relu"):
        with pytest.raises(UserError, match=path):
            record.apply_config(Mixed(), {"layers": {path: spec}})


class Listing(nn.Module):
    """Two layers that forward takes from a place of the model's own."""

    def __init__(self, place: Callable[[nn.Module, nn.Module], Any]) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
        self.place = place(self.a, self.b)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        place = self.place
        if isinstance(place, SimpleNamespace):
            place = place.inner
        for layer in place.values() if isinstance(place, dict) else place:
            x = layer(x)
        return x


PLACES = {"list": lambda a, b: [a, b], "tuple": lambda a, b: (a, b), "dict": lambda a, b: {"a": a, "b": b},
          "object": lambda a, b: SimpleNamespace(inner=[a, b]), "methods": lambda a, b: [a.forward, b.forward]}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_layers_in_a_place_of_the_models_own_are_compressed_there(place: Callable[..., Any], tmp_path: Path) -> None:
    """The list went on with the dense layers, of which the file had nothing."""
    torch.manual_seed(0)
    model, x = Listing(place).eval(), torch.randn(3, 8)
    small, report = compress(model, "svd", size=0.5, quantization="int8")
    assert {row.path: row.structure for row in report} == {"a.weight": "svd", "b.weight": "svd"}
    y = small.b(small.a(x))
    assert torch.equal(small(x), y) and not torch.allclose(y, model(x), atol=0.01)
    for file in ("m.packed", "m.safetensors"):
        save(tmp_path / file, small, build=lambda config: Listing(place))
        assert torch.equal(load(tmp_path / file, lambda config: Listing(place))(x), y)
    with pytest.raises(UserError, match="layer 'a' is also in a list or an object"):  # of a file from before
        record.apply_config(model, {"layers": {"a": {"structure": "svd", "shape": [8, 8], "rank": 2}}})


@pytest.mark.parametrize("kept", [lambda y: {"h": y}, lambda y: OrderedDict(h=[y]), lambda y: [y], lambda y: y])
def test_a_model_that_keeps_what_it_computed_is_copied(kept: Callable[[torch.Tensor], Any]) -> None:
    """In a dict, it could not be."""
    model = nn.Linear(8, 8)
    model.kept = kept(model(torch.randn(3, 8)))
    copied = modules.copy_model(model)
    assert type(copied.kept) is type(model.kept) and torch.equal(copied.weight, model.weight)
