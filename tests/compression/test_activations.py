"""Inputs of layers as 8-bit integers: the grid against arithmetic by hand, and files that carry it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from asrcompress.compression import Plan, activations, compress, fold, load, packed, save_model
from asrcompress.compression.activations import Grid
from asrcompress.compression.packed.container import PackedError
from asrcompress.errors import UserError
from tests.compression.models_of_tests import Net, Odd, net
from tests.compression.packed.test_container import parts, write


def batches(count: int = 2) -> list[tuple[torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(2, 16, 30, generator=generator),) for _ in range(count)]


def onnx_quantised(x: np.ndarray, grid: Grid) -> np.ndarray:
    """QuantizeLinear and DequantizeLinear as the ONNX operators are specified."""
    q = np.clip(np.rint(x / np.float32(grid.scale)) + grid.zero, 0, 255)
    return ((q - grid.zero) * np.float32(grid.scale)).astype(np.float32)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.0, 2.5), (-4.0, 0.0), (1.0, 2.0), (0.0, 0.0)])
def test_a_grid_rounds_as_onnx_does_and_has_zero(low: float, high: float) -> None:
    grid = Grid.of_range(low, high)
    assert grid.low <= 0 <= grid.high and 0 <= grid.zero <= 255
    assert grid.high - grid.low == pytest.approx(max(high, 0) - min(low, 0), rel=1e-6, abs=1e-9)
    x = torch.randn(1000) * 3
    np.testing.assert_allclose(grid.round(x).numpy(), onnx_quantised(x.numpy(), grid), rtol=1e-6, atol=1e-12)
    assert grid.round(torch.zeros(1)) == 0


def test_gradients_pass_except_where_the_input_was_clipped() -> None:
    x = torch.tensor([-3.0, -0.5, 0.3, 5.0], requires_grad=True)
    Grid.of_range(-1, 1).round(x).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 0]


def test_the_range_is_what_the_layer_saw_or_the_one_of_least_error() -> None:
    model = nn.Sequential(nn.Linear(8, 2))
    x = torch.randn(2**17, 8, generator=torch.Generator().manual_seed(0))
    x[0, 0] = 40.0
    whole, best = (activations.observe(model, [(x,)], how)["0"] for how in ("minmax", "mse"))
    assert (whole.low, whole.high) == pytest.approx((float(x.min()), 40), abs=whole.scale)
    errors = [float(np.square(onnx_quantised(x.numpy(), grid) - x.numpy()).mean()) for grid in (whole, best)]
    assert best.high < 40 and errors[1] < errors[0]
    even = activations.observe(model, [(x.clamp(-2, 2),)], "mse")["0"]
    assert even.high == pytest.approx(2, abs=0.06), "nothing is gained by clipping any of it"


@pytest.mark.parametrize("structure", ["dense", "svd", "hashed"])
@pytest.mark.parametrize("values", ["float32", "int8", "int4"])
def test_a_packed_file_gives_the_same_model(structure: str, values: str, tmp_path: Path) -> None:
    options = {"size": None} if structure == "dense" else {"size": 0.7}
    small, _ = compress(net(48), Plan(structure=structure, quantization=values, exclude=("convs.2*",), **options))
    rounded = activations.apply(small, activations.observe(small, batches()))
    (x,) = batches(1)[0]
    plain, wanted = small(x), rounded(x)
    assert not torch.equal(plain, wanted)
    packed.save(tmp_path / "m.packed", rounded, build=Net)
    save_model(tmp_path / "m.safetensors", rounded, Net)
    assert torch.equal(packed.load(tmp_path / "m.packed", Net)(x), fold(rounded)(x))
    # Folding rounds otherwise, which may be a step of a later input.
    torch.testing.assert_close(fold(rounded)(x), wanted, rtol=1e-2, atol=1e-2)
    assert torch.equal(load(tmp_path / "m.safetensors", Net)(x), wanted)


def test_every_layer_is_rounded_and_only_its_input() -> None:
    model = net()
    model.output = nn.Linear(32, 10)
    rounded = activations.apply(model, activations.observe(model, batches()))
    assert set(activations.entries(rounded)) == {"convs.0", "convs.1", "convs.2", "output"}
    seen = {}
    for path in activations.entries(rounded):
        rounded.get_submodule(path).register_forward_pre_hook(
            lambda layer, args, path=path: seen.update({path: args[0].detach()}))
    rounded(*batches(1)[0])
    for path, x in seen.items():
        scale = activations.entries(rounded)[path]["scale"]
        assert len(torch.unique(x)) <= 256
        torch.testing.assert_close(x / scale, (x / scale).round(), rtol=0, atol=1e-3)
    assert not model.get_submodule("convs.0")._forward_pre_hooks, "the model itself is not touched"


def test_what_is_compressed_again_needs_new_ranges() -> None:
    rounded = activations.apply(net(), activations.observe(net(), batches()))
    again, _ = compress(rounded, Plan("svd", size=0.7))
    assert not activations.entries(again) and activations.entries(rounded)
    twice = activations.apply(rounded, activations.observe(net(), batches()))
    assert all(len(module._forward_pre_hooks) <= 1 for module in twice.modules())


def test_a_layer_called_by_keyword() -> None:
    x = torch.randn(30, 4)
    model = Odd()
    grids = activations.observe(model, [(x,)])
    assert grids.keys() == {"used"}
    assert torch.equal(activations.apply(model, grids)(x), model.used(grids["used"].round(x)))


def test_mistakes_are_sentences() -> None:
    with pytest.raises(UserError, match="mse or minmax"):
        activations.observe(net(), batches(), "guess")
    with pytest.raises(UserError, match="no layer was seen"):
        activations.apply(net(), activations.observe(net(), []))
    with pytest.raises(UserError, match=r"convs.0: .*not finite"):
        activations.observe(net(), [(torch.full((1, 16, 9), float("nan")),)])


@pytest.mark.parametrize("change", [
    {"scale": 0.0}, {"scale": float("inf")}, {"scale": "1"}, {"scale": 1}, {"zero": -1}, {"zero": 256}, {"zero": 1.0},
    {"quantization": "int3"}, None])
def test_a_file_with_odd_activations_is_refused(change: dict[str, object] | None, tmp_path: Path) -> None:
    rounded = activations.apply(net(), activations.observe(net(), batches()))
    packed.save(tmp_path / "good", rounded, build=Net)
    header, streams = parts(tmp_path / "good")
    entries = json.loads(json.dumps(header["record"]["activations"]))
    if change is None:
        entries["moon"] = entries.pop("convs.0")
    else:
        entries["convs.0"].update(change)
    header["record"]["activations"] = entries
    with pytest.raises(PackedError, match="activations"):
        packed.load(write(tmp_path / "odd", header, streams), Net)
