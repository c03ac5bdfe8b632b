"""Device files measured in the runtimes themselves."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import asrcompress
from asrcompress import runtimes
from asrcompress.cli import main
from asrcompress.compression import packed
from asrcompress.errors import UserError
from asrcompress.measure import macs, onnx_macs, timing
from asrcompress.report import rows
from asrcompress.runtimes.base import Timing
from asrcompress.runtimes.onnx_graph import whisper
from tests.runtimes import tiny


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DIR/dense and DIR/svd, each with model.packed and device/."""
    folder = tmp_path_factory.mktemp("device")
    for name, model in (("dense", tiny.tdnn()), ("svd", tiny.compressed("svd", 0.25))):
        (folder / name).mkdir()
        path, lang = tiny.packed(folder / name, model)
        assert main(["export", str(path), "--lang", str(lang), "--out", str(folder / name / "device")]) == 0
    return folder


def test_the_command_in_onnxruntime(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    svd, dense, out = files / "svd" / "device", files / "dense" / "device", tmp_path / "info.json"
    capsys.readouterr()
    assert main(["measure", str(svd), "--against", str(dense), "--seconds", "2", "--json", "--out", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(out.read_text())
    sizes = [(one / "model.onnx").stat().st_size for one in (svd, dense)]
    assert (found["device_bytes"], found["device_ratio"]) == (sizes[0], round(sizes[1] / sizes[0], 4))
    assert found["macs_per_second"] == macs.macs_per_second(packed.load(files / "svd" / "model.packed"), 2)
    assert 0 < found["rtf"] < 1 and 0 < found["load_seconds"] < 60 and found["runtime"] == "onnxruntime"
    assert 0 < found["chunk_p50_ms"] <= found["chunk_p95_ms"] <= found["chunk_p99_ms"]
    assert 10e6 < found["rss_before_load_bytes"] <= found["peak_rss_bytes"] < 250e6  # torch alone takes more
    low, high = found["speedup_ci95"]
    assert 0 < low <= found["speedup"] <= high
    rows.check({"name": "x", "test_set": "x", "search": "x", **{k: v for k, v in found.items() if k in rows.KEYS}}, "")


def test_the_command_in_sherpa_onnx(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["measure", str(files / "svd" / "device"), "--runtime", "sherpa-onnx", "--seconds", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["runtime"] == "sherpa-onnx" and found["runtime_version"] and 0 < found["rtf"] < 1
    assert 10e6 < found["rss_before_load_bytes"] <= found["peak_rss_bytes"] < 250e6


@pytest.mark.parametrize("runtime", runtimes.names())
def test_the_measuring_process_has_no_torch(files: Path, runtime: str) -> None:
    arguments = ["measure", str(files / "svd" / "device"), "--here", "--json", "--seconds", "1", "--runtime", runtime]
    program = ("import sys; from asrcompress.cli import main; code = main(sys.argv[1:]); "
               "sys.exit(code or bool({'torch', 'onnx', 'lhotse'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True).returncode == 0


def test_interval_of_a_ratio() -> None:
    rounds = np.random.default_rng(1).uniform(0.9, 1.1, (40, 1)) * np.array([[3.0, 1.0]])  # noise that both share
    rounds *= np.random.default_rng(2).normal(1, 0.02, rounds.shape)
    low, high = timing.interval(rounds)
    assert low < timing.ratio_of_medians(rounds) < high and low < 3 < high and high - low < 0.4
    assert timing.interval(np.tile([2.0, 1.0], (5, 1))) == (2, 2)


def test_macs_of_every_product(tmp_path: Path) -> None:
    """Shapes by hand: (1, T, 8) x (8, 6), then (6, 4) transposed in Gemm, a convolution and an integer product."""
    random = np.random.default_rng(0)

    def constant(name: str, *shape: int, kind: type = np.float32) -> onnx.TensorProto:
        return numpy_helper.from_array(random.integers(0, 9, shape).astype(kind), name)

    weights = [constant("a", 8, 6), constant("b", 4, 6), constant("c", 5, 3, 3), constant("d", 6, 7, kind=np.uint8),
               numpy_helper.from_array(np.array([-1, 6]), "rows"),
               numpy_helper.from_array(np.array([1, 3, 16]), "tall")]
    nodes = [helper.make_node("MatMul", ["x", "a"], ["y"]), helper.make_node("Reshape", ["y", "rows"], ["flat"]),
             helper.make_node("Gemm", ["flat", "b"], ["z"], transB=1),
             helper.make_node("Reshape", ["x", "tall"], ["image"]), helper.make_node("Conv", ["image", "c"], ["w"]),
             helper.make_node("Cast", ["flat"], ["bytes"], to=TensorProto.UINT8),
             helper.make_node("MatMulInteger", ["bytes", "d"], ["v"])]
    outputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in
               (("z", TensorProto.FLOAT), ("w", TensorProto.FLOAT), ("v", TensorProto.INT32))]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 6, 8])], outputs,
                              weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "m.onnx")
    found = onnx_macs.macs(tmp_path / "m.onnx", {"x": np.ones((1, 6, 8), np.float32)})
    assert found == 6 * 8 * 6 + 6 * 6 * 4 + 14 * 5 * 3 * 3 + 6 * 6 * 7


def test_macs_of_transposed_convolutions_and_einsum_and_of_a_file_without_products(tmp_path: Path) -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = torch.nn.ConvTranspose1d(8, 6, 3, stride=2, groups=2)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (self.up(x), torch.einsum("nct,dt->ncd", x, y), torch.einsum("...t,dt->d...", x, y),
                    torch.einsum("nct->tc", x))

    x, y = torch.randn(2, 8, 5), torch.randn(4, 5)
    asrcompress.export(Net().eval(), tmp_path / "m.onnx", (x, y))
    assert onnx_macs.macs(tmp_path / "m.onnx", {"x": x.numpy(), "y": y.numpy()}) == (
        2 * 8 * 5 * 3 * 3 + 2 * (2 * 8 * 5 * 4))
    asrcompress.export(torch.nn.ReLU(), tmp_path / "relu.onnx", x)
    assert asrcompress.measure(tmp_path / "relu.onnx")["macs"] == 0


def test_a_whisper_is_measured_in_the_runtime_that_decodes_it(tmp_path: Path) -> None:
    from tests.runtimes.onnx_graph import test_whisper

    pytest.importorskip("sherpa_onnx")
    whisper.export_whisper(test_whisper.tiny(), tmp_path, test_whisper.vocabulary(test_whisper.MANY))
    found = asrcompress.measure(tmp_path, runtime="sherpa-onnx", seconds=2)
    sizes = [(tmp_path / name).stat().st_size for name in ("encoder.onnx", "decoder.onnx")]
    assert found["device_bytes"] == sum(sizes) and found["rtf"] > 0 and not {"macs", "macs_per_second"} & found.keys()
    with pytest.raises(UserError, match="is a Whisper, .* take --runtime sherpa-onnx"):
        asrcompress.measure(tmp_path)
    with pytest.raises(UserError, match="hears 29.5 s at most, and --seconds is 30"):
        runtimes.find("sherpa-onnx").measure(tmp_path, timing=Timing(seconds=30))


def test_a_model_of_no_speech_has_seconds_instead_of_an_rtf(tmp_path: Path) -> None:
    x = torch.randn(3, 80)
    asrcompress.export(torch.nn.Linear(80, 20), tmp_path / "m.onnx", x)
    for inputs in (x, None):
        found = asrcompress.measure(tmp_path / "m.onnx", inputs)
        assert found["macs"] == 3 * 80 * 20 and 0 < found["forward_seconds"] < 1
        assert not {"rtf", "macs_per_second", "chunk_p50_ms"} & found.keys()


def test_errors_are_sentences(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*arguments: str) -> str:
        capsys.readouterr()
        assert main(["measure", *arguments, "--seconds", "1"]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "Traceback" not in error
        return error

    svd = files / "svd" / "device"
    assert "model.onnx does not exist" in fails(str(tmp_path))
    assert "none.onnx does not exist" in fails(str(tmp_path / "none.onnx"))
    (tmp_path / "bad.onnx").write_bytes((svd / "model.onnx").read_bytes()[:5000])
    assert "export it again" in fails(str(tmp_path / "bad.onnx"))
    assert "model.onnx does not exist" in fails(str(svd), "--against", str(tmp_path))
    assert "is for --runtime sherpa-onnx" in fails(str(svd), "--graph", str(tmp_path / "HLG.fst"))
    assert "are for device files" in fails(str(files / "svd" / "model.packed"), "--against", str(svd))
    assert "needs a folder" in fails(str(svd / "model.onnx"), "--runtime", "sherpa-onnx")

    def fails_to_load(path: Path) -> str:
        with pytest.raises(UserError) as error:
            runtimes.find("onnxruntime").load(path)
        return str(error.value)

    other = onnx.load(svd / "model.onnx")
    del other.metadata_props[:]
    onnx.save(other, tmp_path / "other.onnx")
    assert "not an acoustic model" in fails_to_load(tmp_path / "other.onnx")
