"""The graph of a Conformer against torch, alone and in batches; what it costs, and how long an utterance may be."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx as onnx_package
import pytest
import soundfile
import torch

from asrcompress.cli import main
from asrcompress.compression import structures
from asrcompress.errors import UserError
from asrcompress.measure import onnx_macs
from asrcompress.runtimes import base, onnxruntime, sherpa_onnx
from asrcompress.runtimes.onnx_graph import acoustic, parity
from asrcompress.runtimes.onnx_graph.options import Options
from asrcompress.runtimes.onnx_graph.session import session
from tests.runtimes import tiny


@pytest.mark.parametrize("batch1", [False, True])
@pytest.mark.parametrize("structure", structures.names())
def test_every_structure_gives_the_same_log_probabilities(structure: str, batch1: bool) -> None:
    model = tiny.compressed(structure, family="conformer")
    proto = acoustic.convert(model, Options(batch1=batch1))
    batches = parity.random_batches(batch1)
    assert parity.check(model, proto, batches, 1e-4) < 1e-4
    inside = set(parity.layer_outputs(model, batches[0])) & {node.name for node in proto.graph.node}
    half = ("norm", "up", "activation", "down")
    block = {*(f"{one}.{part}" for one in ("ff1", "ff2") for part in half), "norm",
             *(f"attention.{part}" for part in ("norm", "query", "key", "value", "out")),
             *(f"convolution.{part}" for part in ("norm", "pointwise_in", "depthwise", "activation", "pointwise_out"))}
    assert inside == {*(f"blocks.{i}.{part}" for i in range(2) for part in block), "front.0", "front.1",
                      "front.0.conv", "front.1.conv", "output"}


@pytest.mark.parametrize("changes", [{}, {"positions": "none"}, {"activation": "relu"}, {"heads": 1, "kernel": 1},
                                     {"activation": "lma_continuous"}, {"activation": "lma", "segments": 4},
                                     {"front_end": "conv2d"}])
def test_every_kind_of_model(changes: dict[str, Any]) -> None:
    model = tiny.conformer(**changes)
    for batch1 in (False, True):
        proto = acoustic.convert(model, Options(batch1))
        parity.check(model, proto, parity.random_batches(batch1), 3e-5)  # of numbers down to -30
        used = {node.op_type for node in proto.graph.node}
        assert ("Cos" in used) == (changes.get("positions") != "none") and ("Less" in used) != batch1


def test_layer_norms_without_gains_and_biases() -> None:
    model = tiny.conformer()
    for path, module in list(model.named_modules()):
        if isinstance(module, torch.nn.LayerNorm) and path.count(".") == 3:  # all but the last of a block
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, torch.nn.LayerNorm(24, elementwise_affine=False))
    proto = acoustic.convert(model)
    parity.check(model, proto, parity.random_batches(False), 3e-5)
    stored = {one.name for one in proto.graph.initializer}
    assert "blocks.0.norm.bias" in stored and "blocks.0.ff1.norm.bias" not in stored


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_random_numbers_in_the_padding_change_nothing(precision: str) -> None:
    running = session(acoustic.convert(tiny.conformer(), Options(precision=precision)).SerializeToString())
    x, lens = (tensor.numpy() for tensor in parity.random_batches(False)[0])  # what lies past an end is random too
    loud = np.where(np.arange(x.shape[1])[:, None] < lens[:, None, None], x, 1e3 * x)
    together, frames = running.run(None, {"x": loud, "x_lens": lens})
    for row, length, n, some in zip(x, lens, frames, together, strict=True):
        alone, one = running.run(None, {"x": row[None, :length], "x_lens": lens[:1] * 0 + length})
        assert one.tolist() == [n] == [-(-length // 4)] and alone.shape == (1, n, tiny.VOCAB)
        np.testing.assert_allclose(some[:n], alone[0], rtol=1e-5, atol=1e-5)


def test_macs_by_hand_attention_included(tmp_path: Path) -> None:
    d, frames = 24, 50
    block = frames * (4 * d * 40 + 7 * d * d + 5 * d) + 2 * frames * frames * d
    by_hand = 100 * 16 * 80 * 5 + frames * d * 16 * 3 + 2 * block + frames * d * tiny.VOCAB
    feeds = {"x": np.zeros((1, 200, 80), np.float32), "x_lens": np.array([200])}
    for precision in ("float32", "int8-dynamic"):
        onnxruntime.export(tiny.conformer(), tmp_path / "m.onnx", batch1=True, precision=precision, tolerance=0.2)
        assert onnx_macs.macs(tmp_path / "m.onnx", feeds) == by_hand


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Noise of 0.7, 1.3 and 2 s."""
    folder, random = tmp_path_factory.mktemp("waves"), np.random.default_rng(0)
    paths = []
    for i, length in enumerate((11200, 20800, 32000)):
        paths.append(folder / f"wave{i}.wav")
        soundfile.write(paths[-1], random.normal(0, 0.02, length) * (1.2 + np.sin(np.arange(length) / 900)), 16000)
    return paths


def exported(folder: Path, *options: str) -> Path:
    path, lang = tiny.packed(folder, tiny.conformer())
    assert main(["export", str(path), "--lang", str(lang), "--out", str(folder / "device"), *options]) == 0
    return folder / "device"


def test_streams_together_give_the_tokens_of_each_alone(tmp_path: Path, waves: list[Path]) -> None:
    recognizer = sherpa_onnx.load(exported(tmp_path))
    streams = []
    for _, samples, rate in base.waves_of_files(waves):
        streams.append(recognizer.offline.create_stream())
        streams[-1].accept_waveform(rate, samples)
    recognizer.offline.decode_streams(streams)
    together = [" ".join(token.strip() for token in stream.result.tokens) for stream in streams]
    alone = sherpa_onnx.decode(recognizer, base.waves_of_files(waves)).tokens
    assert together == list(alone.values()) and all(together)


@pytest.mark.parametrize("runtime", ["sherpa-onnx", "onnxruntime"])
def test_what_is_too_long_is_one_sentence(runtime: str, tmp_path: Path, waves: list[Path],
                                          capsys: pytest.CaptureFixture[str]) -> None:
    device = exported(tmp_path, "--batch1", "--max-seconds", "1.5")
    command = ["decode", "--runtime", runtime, "--model", str(device), "--out", str(tmp_path / "out"), "--wavs"]
    assert main([*command, *map(str, waves[:2])]) == 0
    assert main([*command, *map(str, waves)]) == 1
    said = capsys.readouterr().err
    assert "wave2 has 2.0 s, and" in said and "made for 1.5 s at most" in said and "--max-seconds" in said
    assert said.count("\n") == 1
    with pytest.raises(UserError, match=r"an utterance has 1\.6 s"):
        onnxruntime.load(device)(torch.zeros(1, 160, 80), torch.tensor([160]))


def test_the_limit_is_two_minutes_for_attention_and_none_without() -> None:
    def limit(model: torch.nn.Module, **options: Any) -> str | None:
        metadata = {one.key: one.value for one in acoustic.convert(model, Options(**options)).metadata_props}
        return metadata.get("max_seconds")

    assert limit(tiny.conformer()) == "120" and limit(tiny.tdnn()) is None
    assert limit(tiny.conformer(), max_seconds=300.0) == "300" and limit(tiny.tdnn(), max_seconds=60.0) == "60"


def test_command_measures_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, large = (exported(tmp_path / name, "--batch1", *more) for name, more in (
        ("int8", ("--precision", "int8-dynamic", "--reduce-range", "--tolerance", "0.2")), ("float32", ())))
    assert main(["measure", str(small), "--against", str(large), "--seconds", "3"]) == 0
    said = capsys.readouterr().out
    assert "speedup" in said and "macs_per_second" in said
    metadata = onnx_package.load(str(small / "model.onnx")).metadata_props
    assert ("comment", "Conformer with CTC") in {(one.key, one.value) for one in metadata}
