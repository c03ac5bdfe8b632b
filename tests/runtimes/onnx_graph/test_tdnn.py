from pathlib import Path
from typing import Any

import numpy as np
import onnx as onnx_package
import pytest
import torch
from torch import Tensor

from asrcompress.cli import main
from asrcompress.compression import activations, structures
from asrcompress.compression.structures.low_rank.tensor_train import TensorTrain
from asrcompress.errors import UserError
from asrcompress.runtimes import sherpa_onnx
from asrcompress.runtimes.onnx_graph import acoustic, parity
from asrcompress.runtimes.onnx_graph.builder import Graph, Window
from asrcompress.runtimes.onnx_graph.chains import multiply
from asrcompress.runtimes.onnx_graph.options import Options
from asrcompress.runtimes.onnx_graph.session import session
from tests.runtimes import tiny


def kinds(proto: onnx_package.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


@pytest.mark.parametrize("batch1", [False, True])
@pytest.mark.parametrize("structure", structures.names())
def test_every_structure_gives_the_same_log_probabilities(structure: str, batch1: bool) -> None:
    model = tiny.compressed(structure)
    proto = acoustic.convert(model, Options(batch1=batch1))
    assert parity.check(model, proto, parity.random_batches(batch1), 1e-3) < 1e-3
    inside = set(parity.layer_outputs(model, parity.random_batches(batch1)[0])) & {n.name for n in proto.graph.node}
    assert {f"layers.{i}.conv" for i in range(4)} | {f"layers.{i}" for i in range(4)} | {"output"} == inside


@pytest.mark.parametrize("changes", [
    {"prefinal": 10},
    {"bypass": 0.0}, {"activation": "lma_continuous"}, {"activation": "lma", "segments": 4, "bypass": 0.0},
    {"stack": [tiny.STACK[0], {"dim": 32, "taps": 3, "stride": 2, "pnorm": 4}, {"dim": 16, "taps": 2, "dilation": 2}]},
    {"stack": [*tiny.STACK[:2], {"dim": 32, "taps": 3, "dilation": 3, "bottleneck": 6, "repeat": 2}]},
    {"stack": [*tiny.STACK[:2], {"dim": 32, "taps": 1, "bottleneck": 6}]}])
def test_every_kind_of_layer(changes: dict[str, Any]) -> None:
    model = tiny.tdnn(**changes)
    for batch1 in (False, True):
        parity.check(model, acoustic.convert(model, Options(batch1)), parity.random_batches(batch1), 1e-4)


def test_padding_does_not_leak() -> None:
    running = session(acoustic.convert(tiny.tdnn()).SerializeToString())
    x, lens = (tensor.numpy() for tensor in parity.random_batches(False)[0])
    together, frames = running.run(None, {"x": x, "x_lens": lens})
    for row, length, n, some in zip(x, lens, frames, together, strict=True):
        alone, one = running.run(None, {"x": row[None, :length], "x_lens": lens[:1] * 0 + length})
        assert one.tolist() == [n] == [-(-length // 4)] and alone.shape == (1, n, tiny.VOCAB)
        np.testing.assert_allclose(some[:n], alone[0], atol=1e-4)


def test_factors_stay_factors_and_the_rest_is_dense() -> None:
    names = ("dense", "svd", "cp", "tucker", "hashed")
    sizes = {name: acoustic.convert(tiny.compressed(name)).ByteSize() for name in names}
    assert max(sizes[name] for name in ("svd", "cp", "tucker")) < 0.6 * sizes["dense"]
    assert abs(sizes["hashed"] - sizes["dense"]) < 100


def output(layer: structures.Structure, x: Tensor, window: Window, **options: Any) -> np.ndarray[Any, Any]:
    """What the exported layer makes of x (N, T, in)."""
    g = Graph()
    g.op("Identity", multiply(g, "layer", layer, "x", window, **options), name="y")
    info = onnx_package.helper.make_tensor_value_info
    kind = onnx_package.TensorProto.FLOAT
    proto = g.model([info("x", kind, ["N", "T", x.shape[2]])], [info("y", kind, ["N", "U", layer.shape[0]])], {})
    return session(proto.SerializeToString()).run(None, {"x": x.numpy()})[0]


@pytest.mark.parametrize("window", [Window(), Window(2, 3, 1), Window(1, 4, 3), Window(3, 0, 2)])
@pytest.mark.parametrize("name, options", [
    ("svd", {"unfolding": "input"}), ("svd", {"unfolding": "output"}), ("grouped", {"groups": 4}),
    ("grouped", {"groups": 1}), ("tucker", {}), ("cp", {}), ("tensor_train", {"modes": "separate"}), ("toeplitz", {})])
def test_a_chain_is_the_convolution_with_the_dense_weight(name: str, options: dict[str, Any], window: Window) -> None:
    layer, x = structures.init(name, (18, 20, 3), 0.4, **options), torch.randn(2, 25, 20)
    for one in (layer, structures.Scaled(layer, torch.rand(18))):
        expected = torch.nn.functional.conv1d(x.mT, one.dense(), None, *window).mT.detach()
        np.testing.assert_allclose(output(one, x, window), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["tucker", "cp"])
@pytest.mark.parametrize("context_frames", [1, 4])
def test_a_chain_of_a_matrix_whose_inputs_are_frames_side_by_side(name: str, context_frames: int) -> None:
    layer, x = structures.init(name, (18, 20), 0.4, context_frames=context_frames), torch.randn(2, 25, 20)
    for one in (layer, structures.Scaled(layer, torch.rand(18))):
        np.testing.assert_allclose(output(one, x, Window()), (x @ one.dense().T).detach(), atol=1e-5)


@pytest.mark.parametrize("way", ["first", "last"])
@pytest.mark.parametrize("factors", [[[3, 6], [4, 5]], [[2, 3, 3], [5, 2, 2]], [[4, 5], [3, 7]]])
def test_paired_trains_can_be_contracted(way: str, factors: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TensorTrain, "order", lambda *_: way)
    monkeypatch.setattr(TensorTrain, "macs", lambda *_: 1)
    for shape in ((18, 20, 3), (18, 20)):
        layer, x = structures.init("tensor_train", shape, rank=3, factors=factors), torch.randn(2, 25, 20)
        window = Window(2, 2, 2) if len(shape) == 3 else Window()
        kernel = layer.dense().reshape(18, 20, -1)
        expected = torch.nn.functional.conv1d(x.mT, kernel, None, *window).mT.detach()
        np.testing.assert_allclose(output(layer, x, window), expected, atol=1e-5)


def test_float16_halves_the_file() -> None:
    model = tiny.compressed("svd")
    single, half = (acoustic.convert(model, Options(precision=kind)) for kind in ("float32", "float16"))
    assert 0.5 < half.ByteSize() / single.ByteSize() < 0.8  # a tiny model is mostly nodes
    error = parity.check(model, half, parity.random_batches(False), parity.TOLERANCES["float16"])
    assert error > 1e-5


def test_acoustic_scale_is_a_factor() -> None:
    model = tiny.tdnn()
    proto = acoustic.convert(model, Options(acoustic_scale=2.5))
    parity.check(model, proto, parity.random_batches(False), 1e-4, scale=2.5)
    assert {entry.key: entry.value for entry in proto.metadata_props}["acoustic_scale"] == "2.5"


def test_the_first_layer_that_differs_is_named() -> None:
    model = tiny.compressed("svd")
    proto = acoustic.convert(model)
    wrong = next(one for one in proto.graph.initializer if one.name == "layers.2.conv.left")
    wrong.CopyFrom(onnx_package.numpy_helper.from_array(onnx_package.numpy_helper.to_array(wrong) * 1.5, wrong.name))
    with pytest.raises(UserError, match=r"differ from torch's by .*first layer that differs is layers\.2\.conv, by"):
        parity.check(model, proto, parity.random_batches(False), 1e-3)


@pytest.mark.parametrize("model, sentence", [
    (tiny.tdnn(features=40), "wants 80 features"), (tiny.tdnn(stack=tiny.STACK[1:]), "a subsampling of 4"),
    (torch.nn.Linear(2, 2), "TDNN and Conformer models only")])
def test_what_the_device_cannot_take_is_said(model: torch.nn.Module, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        sherpa_onnx.check(model)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, lang = tiny.packed(tmp_path, tiny.compressed("svd"))
    assert main(["export", str(path), "--lang", str(lang), "--out", str(tmp_path / "device")]) == 0
    written = (tmp_path / "device" / "model.onnx").stat().st_size
    assert f"model.onnx: {written:,} bytes, log-probabilities equal within" in capsys.readouterr().out
    assert (tmp_path / "device" / "tokens.txt").read_text() == (lang / "tokens.txt").read_text()
    metadata = onnx_package.load(str(tmp_path / "device" / "model.onnx")).metadata_props
    assert ("model_type", "zipformer2_ctc") in {(one.key, one.value) for one in metadata}


def test_command_writes_nothing_where_parity_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, lang = tiny.packed(tmp_path, tiny.tdnn())
    command = ["export", str(path), "--lang", str(lang), "--out", str(tmp_path / "device"), "--tolerance", "1e-12"]
    assert main(command) == 1
    assert "the first layer that differs is" in (said := capsys.readouterr().err) and said.count("\n") == 1
    assert not (tmp_path / "device").exists()


def test_command_wants_the_tokens_of_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = tiny.packed(tmp_path, tiny.tdnn(vocab=9))
    assert main(["export", str(path), "--lang", str(tmp_path / "lang"), "--out", str(tmp_path / "device")]) == 1
    assert "has 7 tokens, and the model 9 outputs" in capsys.readouterr().err
    assert not (tmp_path / "device").exists()


def test_command_refuses_rounded_activations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny.tdnn()
    speech = [(torch.randn(2, 60, 80), torch.tensor([60, 60]))]
    path, lang = tiny.packed(tmp_path, activations.apply(model, activations.observe(model, speech)))
    assert main(["export", str(path), "--lang", str(lang), "--out", str(tmp_path / "device")]) == 1
    assert "compress without --activations" in capsys.readouterr().err
    assert not (tmp_path / "device").exists()
