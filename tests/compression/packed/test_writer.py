"""What `packed.save` refuses, and that it leaves no file then."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from asrcompress.compression import Plan, compress, packed
from asrcompress.compression.packed import coding
from asrcompress.errors import UserError
from tests.compression.models_of_tests import Net, net


def test_nothing_is_written_where_a_model_cannot_be_rebuilt(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a Linear is not rebuilt .* give build=FUNCTION"):
        packed.save(tmp_path / "m", nn.Linear(3, 3))
    model = net()
    model.config["extra"] = {1, 2}
    with pytest.raises(UserError, match="not plain JSON"):
        packed.save(tmp_path / "m", model, build=Net)
    assert not list(tmp_path.iterdir())
    packed.save(tmp_path / "m", net(), build=Net)
    with pytest.raises(UserError, match="m: a Net is not rebuilt .* give build=FUNCTION"):
        packed.load(tmp_path / "m")


def strided(config: Any) -> nn.Module:
    """The same tensors with another stride, which no tensor shows."""
    model = Net(config)
    model.convs[2].stride = (2,)
    return model


class Other(Net):
    """The same modules with another forward."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -super().forward(x)


def narrower(config: Any) -> nn.Module:
    return Net({**config, "width": 16})


@pytest.mark.parametrize("build, said", [
    (strided, "stride=.2,.* at .convs.2."), (Other, "has Other"),
    (narrower, "no model can be built .layer .* has shape")])
def test_a_build_that_makes_another_model_is_refused(build: Callable[[Any], nn.Module], said: str,
                                                     tmp_path: Path) -> None:
    """It failed before: the file was written, and gave other outputs or could not be loaded."""
    small, _ = compress(net(), Plan("svd", 0.6))
    (tmp_path / "m").write_text("an older file")
    with pytest.raises(UserError, match=said):
        packed.save(tmp_path / "m", small, build=build)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["an older file"]


def test_outputs_are_compared_where_there_is_an_example(tmp_path: Path) -> None:
    class Sign(nn.Linear):
        sign = 1.0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.sign * super().forward(x)

    def build(config: Any) -> nn.Module:
        model = Sign(4, 4)
        model.sign = -1.0
        return model

    with pytest.raises(UserError, match="the outputs differ by"):
        packed.save(tmp_path / "m", Sign(4, 4), build=build, example=(torch.randn(2, 4),))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("vectors", ["float32", "float16"])
def test_a_file_that_is_not_the_written_model_is_not_kept(vectors: str, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    read = coding.decode_tensor

    def damaged(entry: dict[str, Any], stream: bytes) -> torch.Tensor:
        return read(entry, stream) + (1e-6 if entry["name"] == "output.bias" else 0)

    monkeypatch.setattr(coding, "decode_tensor", damaged)
    with pytest.raises(UserError, match="the tensor 'output.bias' comes out different.*not kept"):
        packed.save(tmp_path / "m", net(), vectors=vectors, build=Net)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("vectors", ["float16", "int8"])
def test_vectors_that_a_quantization_cannot_hold_stay_as_they_are(vectors: str, tmp_path: Path) -> None:
    """One variance above 65,504, or a mask of -inf, and there was no file."""
    def build(config: Any) -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        model.register_buffer("mask", torch.full((7,), float("-inf")))
        return model

    model = build({}).eval()
    model[1].running_var.fill_(1e5)
    packed.save(tmp_path / "m", model, vectors=vectors, build=build)
    again = packed.load(tmp_path / "m", build)
    assert torch.equal(again[1].running_var, model[1].running_var) and torch.equal(again.mask, model.mask)
    stored = {row["name"]: row["quantization"] for row in packed.info(tmp_path / "m")}
    assert (stored["mask"], stored["1.running_var"], stored["0.bias"]) == ("float32", "float32", vectors)


@dataclass
class Width:
    width: int = 4


@pytest.mark.parametrize("config", [Width(), {"width": 4}])
def test_build_is_called_with_what_the_config_says(config: Any, tmp_path: Path) -> None:
    """Of a dataclass it was called with nothing."""
    def build(config: Any) -> nn.Module:
        return nn.Sequential(nn.Linear(config["width"], config["width"]))

    model = build({"width": 4})
    model.config = config
    packed.save(tmp_path / "m", model, build=build)
    assert packed.load(tmp_path / "m", build)[0].in_features == 4


@pytest.mark.parametrize("config, said", [
    (SimpleNamespace(width=4), "config is a SimpleNamespace, .* let model.config be a dict or a dataclass"),
    ({"width": 5}, "^[^ ]*/m has a config from which no model can be built")])
def test_a_config_that_does_not_say_the_model_is_a_sentence(config: Any, said: str, tmp_path: Path) -> None:
    def build(config: Any) -> nn.Module:
        raise ValueError("no such width")

    model = nn.Sequential(nn.Linear(4, 4))
    model.config = config
    with pytest.raises(UserError, match=said) as error:
        packed.save(tmp_path / "m", model, build=build)
    assert ".tmp" not in str(error.value) and not list(tmp_path.iterdir())
