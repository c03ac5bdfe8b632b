from pathlib import Path
from typing import Any

import kaldialign
import numpy as np
import onnx as onnx_package
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from asrcompress.cli import main
from asrcompress.compression import modules, quantization, structures
from asrcompress.decoding.greedy import best_tokens
from asrcompress.errors import UserError
from asrcompress.lang.tokens import read_symbols
from asrcompress.measure import machine
from asrcompress.runtimes import base, onnxruntime, sherpa_onnx
from asrcompress.runtimes.onnx_graph import acoustic, parity, quantized, sensitivity
from asrcompress.runtimes.onnx_graph.builder import Graph, Window
from asrcompress.runtimes.onnx_graph.options import PRECISIONS, Options
from asrcompress.runtimes.onnx_graph.session import session
from tests import prepared
from tests.runtimes import tiny

Array = np.ndarray[Any, Any]
SATURATES = machine.int8_saturates()  # then onnxruntime's int8 is exact with weights of 7 bits only, as recipes take
QUANTIZED = PRECISIONS[2:]
RANDOM = np.random.default_rng(0)
ROWS = RANDOM.standard_normal((20, 96)).astype(np.float32) * np.exp(RANDOM.standard_normal((20, 1))).astype(np.float32)


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_are_within_half_a_step_and_steps_are_those_of_their_rows(bits: int) -> None:
    codes, step = quantized.integers(ROWS, bits)
    top = 2 ** (bits - 1) - 1
    reach = top * step[:, None]
    assert (np.abs(codes * step[:, None] - np.clip(ROWS, -reach, reach)) <= step[:, None] / 2 * (1 + 1e-5)).all()
    assert np.abs(codes).max() <= top
    full = np.abs(ROWS).max(1, keepdims=True) / top  # the textbook's scale of each output channel
    textbook = np.square(np.round(ROWS / full) * full - ROWS).sum(1)
    assert (np.square(codes * step[:, None] - ROWS).sum(1) <= textbook * 1.05).all()  # steps are rounded
    assert (step <= full[:, 0] * (1 + 1e-3)).all() and (step >= 0.3 * full[:, 0]).all()
    for row in range(0, 20, 7):  # a row alone has the same scale: none depends on the others
        np.testing.assert_allclose(quantized.integers(ROWS[row: row + 1], bits)[1], step[row], rtol=1e-3)


@pytest.mark.parametrize("bits", [4, 8])
def test_integers_of_a_packed_file_are_kept(bits: int) -> None:
    top = 2 ** (bits - 1) - 1
    codes = RANDOM.integers(-top, top + 1, (9, 96))
    codes[:, 0] = top // 2  # no row needs the largest integer
    codes[3] = np.clip(codes[3], -top // 3, top // 3)
    codes[:, 1], codes[4], codes[5] = 1, 0, np.abs(codes[5])
    rows = (codes * RANDOM.uniform(0.001, 0.2, (9, 1))).astype(np.float32)
    found, step = quantized.integers(rows, bits)
    np.testing.assert_array_equal(found, codes)
    np.testing.assert_allclose(found * step[:, None], rows, rtol=1e-5)


def output(g: Graph, weight: Array, x: Array, window: Window, exact: bool = False) -> Array:
    """What the product of a graph makes of x (N, T, in), in onnxruntime or, `exact`, as ONNX's reference computes."""
    g.op("Identity", g.product("layer.weight", "x", torch.from_numpy(weight), window), name="y")
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", None, size])
             for name, size in (("x", x.shape[2]), ("y", weight.shape[0]))]
    proto = g.model(infos[:1], infos[1:], {})
    running: Any = ReferenceEvaluator(proto) if exact else session(proto.SerializeToString())
    return np.asarray(running.run(None, {"x": x})[0])


def stored(g: Graph) -> dict[str, Array]:
    return {one.name.removeprefix("layer.weight."): numpy_helper.to_array(one) for one in g.initializers}


def convolved(x: Array, weight: Array, window: Window) -> Array:
    return torch.nn.functional.conv1d(torch.from_numpy(x).mT.double(), torch.from_numpy(weight).double(), None,
                                      *window).mT.numpy()


def kernel(rows: Array, taps: int) -> Array:
    """(out, taps x in) -> (out, in, taps)."""
    return rows.reshape(len(rows), taps, -1).transpose(0, 2, 1).copy()


@pytest.mark.parametrize("window", [Window(), Window(2, 2, 1), Window(1, 3, 3)])
@pytest.mark.parametrize("ranges", [None, {"layer.weight": (-1.5, 6.0)}])
def test_int8_is_the_product_of_its_integers(window: Window, ranges: quantized.Ranges | None) -> None:
    weight, x = RANDOM.standard_normal((12, 10, 3)).astype(np.float32), RANDOM.standard_normal((2, 17, 10))
    x = np.ascontiguousarray(x + 1, np.float32)
    g = quantized.Int8(ranges=ranges)
    found = output(g, weight, x, window, exact=SATURATES)
    low, high = (-1.5, 6.0) if ranges else (float(x.min()), float(x.max()))
    scale = (high - low) / 255
    zero = round(-low / scale)
    seen = (np.clip(np.round(x / np.float32(scale)) + zero, 0, 255) - zero) * scale
    file = stored(g)
    assert file["int8"].dtype == np.int8 and file["step"].shape == (12,)
    np.testing.assert_allclose(file["step"], quantized.integers(weight.reshape(12, -1), 8)[1], rtol=1e-3)
    expected = convolved(seen, kernel(file["int8"].T * file["step"][:, None], 3), window)
    off = np.abs(found - expected)  # a number halfway between two integers may go either way
    assert off.max() < 2 * scale * np.abs(weight).max() and (off < 1e-3).mean() > 0.9
    assert np.abs(found - convolved(np.clip(x, low, high), weight, window)).max() < 0.3


def test_a_reduced_range_cannot_saturate_and_keeps_its_precision() -> None:
    weight, x = ROWS.reshape(20, 32, 3), RANDOM.standard_normal((2, 17, 32)).astype(np.float32)
    g = quantized.Int8(bits=7)
    found = output(g, np.ascontiguousarray(weight), x, Window())
    file = stored(g)
    codes = file["int8"].T.astype(int)
    assert 2 * 255 * np.abs(codes).max() < 2**15  # what x86 without VNNI adds in 16 bits
    rows = weight.transpose(0, 2, 1).reshape(20, -1)
    assert (np.abs(codes * file["step"][:, None] - rows) <= file["step"][:, None] * (0.5 + 1e-4)).mean() > 0.99
    top = np.abs(rows).max(1)
    assert (file["step"] <= top / 63 * (1 + 1e-3)).all()
    rounded = kernel((codes * file["step"][:, None]).astype(np.float32), 3)
    scale = (float(x.max()) - float(x.min())) / 255
    assert np.abs(found - convolved(x, rounded, Window())).max() < scale / 2 * np.abs(rounded).sum((1, 2)).max()


@pytest.mark.parametrize("inputs", [10, 64])  # 10 x 3 does not fill a block
def test_int4_is_the_product_of_its_integers(inputs: int) -> None:
    weight, x = RANDOM.standard_normal((12, inputs, 3)).astype(np.float32), RANDOM.standard_normal((2, 17, inputs))
    x, g = x.astype(np.float32), quantized.Int4()
    found = output(g, weight, x, Window(2, 1, 1))
    file = stored(g)
    codes = np.stack([file["int4"] & 15, file["int4"] >> 4], 3).reshape(12, -1, quantized.BLOCK).astype(int) - 8
    rows = (codes * file["step.float16"].astype(np.float32).reshape(12, -1, 1)).reshape(12, -1)[:, :3 * inputs]
    np.testing.assert_allclose(found, convolved(x, kernel(rows, 3), Window(2, 1, 1)), atol=2e-3)


@pytest.mark.parametrize("entries", [16, 256, 5])
@pytest.mark.parametrize("inputs", [11, 12])
def test_a_codebook_is_the_product_of_its_centroids(entries: int, inputs: int) -> None:
    weight, x = RANDOM.standard_normal((12, inputs, 3)).astype(np.float32), RANDOM.standard_normal((2, 17, inputs))
    x, g = x.astype(np.float32), quantized.CodebookGraph(entries=entries)
    found = output(g, weight, x, Window(1, 1, 1))
    file, rows = stored(g), weight.transpose(0, 2, 1).reshape(12, -1)
    assert len(file["codebook"]) <= entries and file["codes"].dtype == np.uint8
    assert file["codes"].size == (rows.size if entries > 16 else -(-rows.shape[1] // 2) * 12)
    spread = rows.std(1, keepdims=True)
    distances = np.abs((rows / spread)[..., None] - file["codebook"])
    nearest = file["codebook"][distances.argmin(2)] * spread
    np.testing.assert_allclose(found, convolved(x, kernel(nearest, 3), Window(1, 1, 1)), atol=1e-3)


def options(precision: str, model: torch.nn.Module, **changes: Any) -> Options:
    if precision == "int8-static":
        changes["ranges"] = sensitivity.ranges(model, Options(), parity.random_batches(True))
    return Options(precision=precision, **changes)


@pytest.mark.parametrize("precision, least", [("int8-dynamic", 3.5), ("int8-static", 3.5), ("int4", 6),
                                              ("codebook", 3.5)])
def test_bytes_shrink_as_promised(precision: str, least: float) -> None:
    model = tiny.tdnn(stack=[{"dim": 256, "taps": 3, "stride": 2}, {"dim": 256, "taps": 3, "stride": 2}])
    single = acoustic.convert(model)
    proto = acoustic.convert(model, options(precision, model))
    assert single.ByteSize() / proto.ByteSize() >= least
    other, divergence = parity.check_quantized(model, proto, parity.random_batches(False), 0.15)
    assert 0 < max(other, divergence) < 0.15


@pytest.mark.parametrize("structure", structures.names())
@pytest.mark.parametrize("precision", ["int8-dynamic", "codebook"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_structure_can_be_quantized(family: str, structure: str, precision: str) -> None:
    model = tiny.compressed(structure, family=family)
    options = Options(precision=precision, reduce_range=SATURATES and precision.startswith("int8"))
    parity.check_quantized(model, acoustic.convert(model, options), parity.random_batches(False), 0.1)


def test_int8_of_a_packed_file_is_its_own() -> None:
    model = tiny.tdnn()
    for path, module in list(model.named_modules()):
        if hasattr(module, "weight") and module.weight.dim() > 1:
            module.weight.data.copy_(quantization.fit("int8", module.weight).tensor())
            assert path
    proto = acoustic.convert(model, Options(precision="int8-dynamic"))
    file = {one.name: numpy_helper.to_array(one) for one in proto.graph.initializer}
    for name, weight in ((path, weight) for path, weight, _ in modules.weights(model)):
        rows = file[f"{name}.weight.int8"].T * file[f"{name}.weight.step"][:, None]
        weight = weight if weight.dim() == 3 else weight[:, :, None]
        np.testing.assert_allclose(kernel(rows, weight.shape[2]), weight.detach(), rtol=1e-5, atol=1e-9)


def test_a_range_is_that_of_the_inputs() -> None:
    model, batches = tiny.tdnn(), parity.random_batches(True)
    ranges = sensitivity.ranges(model, Options(), batches)
    assert list(ranges) == [*(f"layers.{i}.conv.weight" for i in range(4)), "output.weight"]
    inputs = [parity.layer_outputs(model, batch)["layers.3"] for batch in batches]
    low, high = ranges["output.weight"]
    numbers = np.concatenate([x.ravel() for x in inputs])
    assert low == 0 and np.quantile(numbers, 0.999) < high <= numbers.max()
    centred = [x - x.mean(1, keepdim=True) for x, _ in batches]
    low, high = ranges["layers.0.conv.weight"]
    assert min(float(x.min()) for x in centred) <= low < -8 and 8 < high <= max(float(x.max()) for x in centred)


def test_kept_layers_are_float(tmp_path: Path) -> None:
    model = tiny.compressed("svd")
    proto = acoustic.convert(model, Options(precision="int8-dynamic", keep_float=("layers.1.conv", "*.conv.left")))
    names = {one.name for one in proto.graph.initializer}
    assert {"layers.1.conv.left.float16", "layers.1.conv.right.float16", "layers.2.conv.left.float16"} <= names
    assert "layers.2.conv.right.int8" in names and "layers.1.conv.right.int8" not in names
    with pytest.raises(UserError, match=r"no product is called layers.9; keep some of layers.0.conv.right, "):
        acoustic.convert(model, Options(precision="int4", keep_float=("layers.9",)))


def test_the_layer_that_lost_most_is_named() -> None:
    model = tiny.tdnn()
    proto = acoustic.convert(model, Options(precision="int8-dynamic"))
    wrong = next(one for one in proto.graph.initializer if one.name == "layers.2.conv.weight.step")
    wrong.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(wrong) * -3, wrong.name))
    with pytest.raises(UserError, match=r"another best token than torch's .* grows most at layer layers\.2\.conv, to"):
        parity.check_quantized(model, proto, parity.random_batches(False), 0.05)


@pytest.mark.parametrize("precision, more", [
    *((precision, ()) for precision in QUANTIZED), ("codebook", ("--entries", "16")), ("int8-dynamic", ("--batch1",)),
    ("int8-static", ("--batch1", "--acoustic-scale", "2")), ("int8-dynamic", ("--keep-small",)),
    ("int4", ("--batch1", "--keep-float", "output"))])
def test_sherpa_onnx_transcribes(precision: str, more: tuple[str, ...], tiny_corpus: Path, tmp_path: Path) -> None:
    data = prepared.data(tiny_corpus)
    path, lang = tiny.packed(tmp_path, tiny.compressed("hashed" if "--keep-small" in more else "svd"))
    command = ["export", str(path), "--lang", str(lang), "--out", str(tmp_path / "device"), "--precision", precision,
               "--data", str(data), "--set", "dev-quick", "--tolerance", "0.3", *more]
    calibrate = ["--calibrate-set", "train-quick", "--calibrate-minutes", "0.2"] if precision == "int8-static" else []
    assert main([*command, *calibrate]) == 0
    device, names = onnxruntime.load(tmp_path / "device" / "model.onnx"), list(read_symbols(lang / "tokens.txt"))
    found = sherpa_onnx.decode(sherpa_onnx.load(tmp_path / "device"), base.waves_of_set(data, "dev-quick"))
    assert set(found.tokens) == set(batches := parity.utterances(data, "dev-quick"))
    wrong = total = 0
    for utt, batch in batches.items():  # its features are not lhotse's to the last bit, which tips some numbers over
        wanted = [names[token] for token in best_tokens(device(*batch)[0][0].numpy())]
        wrong += kaldialign.edit_distance(wanted, found.tokens[utt].split())["total"]
        total += len(wanted)
    assert total and wrong <= 0.1 * total
    metadata = {one.key: one.value for one in onnx_package.load(str(tmp_path / "device" / "model.onnx")).metadata_props}
    assert metadata["precision"] == precision and metadata["model_type"] == "zipformer2_ctc"


@pytest.mark.parametrize("options, sentence", [
    (["--precision", "int8-static"], "--calibrate-set belongs to --precision int8-static"),
    (["--calibrate-set", "train", "--data", "data"], "--calibrate-set belongs to --precision int8-static"),
    (["--sensitivity-set", "dev", "--data", "data"], "there is no sensitivity to find"),
    (["--sensitivity-set", "dev", "--precision", "int4"], "--data and --set belong together"),
    (["--precision", "int8-static", "--calibrate-set", "no", "--data", "data"], "the prepared set data/no.jsonl.gz"),
    (["--precision", "int8-static", "--calibrate-set", "x", "--data", "data", "--calibrate-minutes", "0"], "above 0"),
    (["--keep-float", "output"], "so no layer can be kept in float"),
    (["--precision", "codebook", "--entries", "300"], "a codebook of the device has 2 to 256 entries, not 300"),
    (["--precision", "int4", "--keep-small"], "made again at load cannot be int4"),
    (["--precision", "int4", "--reduce-range"], "--reduce-range is for int8-dynamic and int8-static, not for int4"),
    (["--precision", "int8-dynamic", "--reduce-range", "--keep-small"], "exclude each other"),
    (["--max-seconds", "0"], "--max-seconds is above 0"),
    (["--runtime", "onnxruntime", "--beam", "12"], "--beam belongs to --runtime sherpa-onnx"),
    (["--exporter", "dynamo"], "--exporter is for --runtime onnxruntime"),
    (["--precision", "int8-dynamic", "--tolerance", "1e-9"], "the error grows most at layer")])
def test_bad_input_is_one_sentence(options: list[str], sentence: str, tmp_path: Path,
                                   capsys: pytest.CaptureFixture[str]) -> None:
    path, lang = tiny.packed(tmp_path, tiny.tdnn())
    given = [] if "--runtime" in options else ["--lang", str(lang)]
    assert main(["export", str(path), *given, "--out", str(tmp_path / "device"), *options]) == 1
    assert sentence in (said := capsys.readouterr().err) and said.count("\n") == 1
    assert not (tmp_path / "device").exists()
