"""sherpa-onnx itself reads the files: real waves in, its tokens and words out."""

import json
from pathlib import Path
from typing import Any

import kaldifst
import numpy as np
import pytest
import soundfile
import torch
from lhotse import Fbank

from asrcompress.cli import main
from asrcompress.decoding.archive import Archive
from asrcompress.decoding.greedy import best_tokens
from asrcompress.lang import text
from asrcompress.lang.tokens import read_symbols, write_symbols
from asrcompress.models.base import AcousticModel
from asrcompress.runtimes import sherpa_onnx
from tests import prepared
from tests.runtimes import tiny

WORDS = ["<eps>", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX"]


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def model(request: pytest.FixtureRequest) -> AcousticModel:
    return tiny.compressed("svd", family=request.param)


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Noise whose loudness and colour change, 0.9 to 2 s."""
    folder, random = tmp_path_factory.mktemp("waves"), np.random.default_rng(0)
    paths = []
    for i, length in enumerate((14400, 20011, 32000)):
        noise = np.convolve(random.standard_normal(length), random.standard_normal(9), "same")
        paths.append(folder / f"wave{i}.wav")
        soundfile.write(paths[-1], 0.02 * noise * (1.2 + np.sin(np.arange(length) / 900)), 16000)
    return paths


def export(folder: Path, model: AcousticModel, *options: str) -> Path:
    path, lang = tiny.packed(folder, model)
    assert main(["export", str(path), "--lang", str(lang), "--out", str(folder / "device"), *options]) == 0
    return folder / "device"


def decode(device: Path, waves: list[Path], *options: str) -> Path:
    out = device.with_name("out")
    assert main(["decode", "--runtime", "sherpa-onnx", "--model", str(device), "--wavs", *map(str, waves), "--out",
                 str(out), *options]) == 0
    return out


def expected(model: AcousticModel, waves: list[Path]) -> dict[str, list[int]]:
    """Greedy tokens from lhotse's features and torch."""
    found = {}
    for path in waves:
        features = torch.as_tensor(Fbank().extract(soundfile.read(path, dtype="float32")[0], 16000))[None]
        with torch.inference_mode():
            log_probs, _ = model(features, torch.tensor([features.shape[1]]))
        found[path.stem] = best_tokens(log_probs[0].numpy())
    return found


@pytest.mark.parametrize("options", [(), ("--batch1",), ("--keep-small",), ("--precision", "float16")])
def test_greedy_tokens_are_those_of_torch(model: AcousticModel, waves: list[Path], tmp_path: Path,
                                          options: tuple[str, ...]) -> None:
    if "--keep-small" in options:
        model = tiny.compressed("hashed", 0.3, model.name)
    device = export(tmp_path, model, *options)
    out = decode(device, waves)
    names = list(read_symbols(device / "tokens.txt"))
    wanted = {utt: " ".join(names[token] for token in tokens) for utt, tokens in expected(model, waves).items()}
    assert text.read(out / "tokens.txt") == wanted and any(wanted.values())
    report = json.loads((out / "decode.json").read_text())
    assert report["utts"] == 3 and report["rtf"] > 0 and report["audio_seconds"] == pytest.approx(4.151, abs=1e-3)
    assert not (out / "hyp.txt").exists()


def ctc_graph(path: Path) -> None:
    """Every token is a word: state t is "the last frame was token t", state 0 the blank."""
    graph = kaldifst.StdVectorFst()
    for _ in range(tiny.VOCAB):
        graph.add_state()
    graph.start = 0
    for source in range(tiny.VOCAB):
        graph.set_final(source, 0)
        for token in range(tiny.VOCAB):
            graph.add_arc(source, kaldifst.StdArc(token + 1, 0 if token == source else token, 0, token))
    graph.write(str(path))


def test_a_graph_gives_words(model: AcousticModel, waves: list[Path], tmp_path: Path,
                             capsys: pytest.CaptureFixture[str]) -> None:
    ctc_graph(tmp_path / "HLG.fst")
    write_symbols(tmp_path / "words.txt", WORDS)
    device = export(tmp_path, model, "--acoustic-scale", "1.5")
    graph = ("--graph", str(tmp_path / "HLG.fst"), "--words")
    out = decode(device, waves, *graph, str(tmp_path / "words.txt"), "--max-active", "1")  # 21, its fewest
    wanted = {utt: " ".join(WORDS[token] for token in tokens) for utt, tokens in expected(model, waves).items()}
    assert text.read(out / "hyp.txt") == wanted
    write_symbols(tmp_path / "short.txt", WORDS[:1])
    for name, most, sentence in (("short.txt", "9", "short.txt has 1 words, and the graph says word"),
                                 ("words.txt", "0", "at most 0 states a frame (--max-active)")):
        assert main(["decode", "--model", str(device), "--wavs", str(waves[0]), "--out", str(out), *graph,
                     str(tmp_path / name), "--max-active", most]) == 1
        assert sentence in capsys.readouterr().err


def test_bpe_tokens_give_words(waves: list[Path], tmp_path: Path) -> None:
    model = tiny.tdnn()
    device = export(tmp_path, model)
    pieces = ["<blk>", "▁THE", "▁CA", "T", "S", "▁", "▁A"]
    write_symbols(device / "tokens.txt", pieces)
    wanted = {utt: " ".join("".join(pieces[token] for token in tokens).replace("▁", " ").split())
              for utt, tokens in expected(model, waves).items()}
    assert text.read(decode(device, waves) / "hyp.txt") == wanted


@pytest.mark.parametrize("options", [(), ("--batch1",), ("--acoustic-scale", "2")])
def test_posteriors_of_the_device_file_are_torchs(model: AcousticModel, tiny_corpus: Path, tmp_path: Path,
                                                  options: tuple[str, ...]) -> None:
    data = prepared.data(tiny_corpus)
    device = export(tmp_path, model, *options, "--data", str(data), "--set", "dev-quick")
    archives = []
    for path in (tmp_path / "model.packed", device / "model.onnx"):
        out = tmp_path / f"{path.suffix[1:]}.post"
        command = ["posteriors", "--model", str(path), "--data", str(data), "--set", "dev-quick", "--out", str(out)]
        assert main(command) == 0
        archives.append(Archive(out))
    assert archives[0].utts == archives[1].utts and archives[0].frame_seconds == archives[1].frame_seconds
    for utt in archives[0].utts:
        np.testing.assert_allclose(archives[0][utt], archives[1][utt], rtol=2**-9, atol=1e-3)


def test_a_prepared_set_is_decoded_from_its_waves(model: AcousticModel, tiny_corpus: Path, tmp_path: Path) -> None:
    data, device = prepared.data(tiny_corpus), export(tmp_path, model)
    command = ["decode", "--model", str(device), "--data", str(data), "--set", "dev-quick"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    found = text.read(tmp_path / "out" / "tokens.txt")
    assert found.keys() == text.read(data / "dev-quick.text").keys()
    transcripts = ["--ref", str(data / "dev-quick.text"), "--lang", str(prepared.lang(tiny_corpus))]
    assert main([*command, "--out", str(tmp_path / "scorable"), *transcripts]) == 0
    assert text.read(tmp_path / "scorable" / "tokens.txt") == found
    assert text.read(tmp_path / "scorable" / "ref.tokens.txt").keys() == found.keys()


@pytest.mark.parametrize("options, sentence", [
    (["--set", "dev"], "give either --data and --set, or --wavs"),
    (["--wavs", "a.wav", "--graph", "HLG.fst"], "--graph and --words belong together"),
    (["--wavs", "a.wav"], "the device model none/model.onnx does not exist")])
def test_bad_input_is_one_sentence(options: list[str], sentence: str, tmp_path: Path,
                                   capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["decode", "--model", "none", "--out", str(tmp_path / "out"), *options]) == 1
    assert sentence in (said := capsys.readouterr().err) and said.count("\n") == 1


@pytest.mark.parametrize("damage", [b"no model", b""])
def test_a_damaged_model_is_one_sentence(damage: bytes, model: AcousticModel, waves: list[Path], tmp_path: Path,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    device = export(tmp_path, model)
    (device / "model.onnx").write_bytes(damage)
    options: list[Any] = ["--model", str(device / "model.onnx"), "--data", str(tmp_path), "--set", "x", "--out", "y"]
    assert main(["posteriors", *options]) == 1
    assert "onnxruntime cannot load" in capsys.readouterr().err


def test_speech_without_a_frame_has_no_tokens(model: AcousticModel, tmp_path: Path) -> None:
    loaded = sherpa_onnx.load(export(tmp_path, model))
    waves = [(f"{length} {rate}", np.zeros(length, np.float32), rate) for length in (0, 60) for rate in (8000, 16000)]
    found = sherpa_onnx.decode(loaded, waves)  # on which it stopped in a Conformer
    assert found.tokens == found.words == {name: "" for name, _, _ in waves}
