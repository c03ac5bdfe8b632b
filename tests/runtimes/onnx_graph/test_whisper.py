"""Whisper in sherpa-onnx: its two files say what torch says, and its recogniser transcribes with them."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import asrcompress
from asrcompress.errors import UserError
from asrcompress.runtimes import sherpa_onnx
from asrcompress.runtimes.onnx_graph import whisper
from asrcompress.runtimes.onnx_graph.whisper_metadata import special_ids, tokens_txt

transformers = pytest.importorskip("transformers")
MANY, ENGLISH = 50257, 50256  # ordinary tokens of OpenAI's two vocabularies


def tiny(many: bool = True, **options: Any) -> Any:
    """A random Whisper whose weights are large enough for its tokens to depend on what it hears."""
    torch.manual_seed(0)
    text = MANY if many else ENGLISH
    config = transformers.WhisperConfig(**{
        "vocab_size": text + 1608, "d_model": 16, "encoder_layers": 1, "decoder_layers": 2,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
        "num_mel_bins": 80, "max_target_positions": 64, "init_std": 0.3, "eos_token_id": text,
        "decoder_start_token_id": text + 1, "pad_token_id": text, **options})
    return transformers.WhisperForConditionalGeneration(config).eval()


def vocabulary(count: int) -> list[bytes]:
    """Names of tokens that tell their ids, as many as are given: those of the special ones are no text otherwise."""
    return [f"{i:x}.".encode() for i in range(count)]


def compressed(way: str) -> nn.Module:
    if way == "svd":
        return asrcompress.compress(tiny(), "svd", rank=4, rank_multiple=1)[0].eval()
    return asrcompress.compress(tiny(), quantization=way)[0].eval() if way != "dense" else tiny()


@pytest.fixture(scope="module", params=["dense", "svd", "int8"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    model, folder = compressed(request.param), tmp_path_factory.mktemp(request.param)
    made = whisper.export_whisper(model, folder, vocabulary(MANY + 1608))
    assert "equal within" in made.agreement
    assert made.path == folder and made.size == sum(one.stat().st_size for one in folder.iterdir())
    return model, folder


def sound(seconds: float) -> np.ndarray[Any, Any]:
    """Noise whose loudness and colour change, 16 kHz."""
    random, length = np.random.default_rng(0), round(16000 * seconds)
    noise = np.convolve(random.standard_normal(length), random.standard_normal(9), "same")
    return (0.02 * noise * (1.2 + np.sin(np.arange(length) / 900))).astype(np.float32)


def heard(folder: Path, samples: np.ndarray[Any, Any], **options: Any) -> Any:
    """What sherpa-onnx itself makes of some samples."""
    sherpa_onnx = pytest.importorskip("sherpa_onnx")
    recogniser = sherpa_onnx.OfflineRecognizer.from_whisper(
        encoder=str(folder / "encoder.onnx"), decoder=str(folder / "decoder.onnx"),
        tokens=str(folder / "tokens.txt"), **options)
    stream = recogniser.create_stream()
    stream.accept_waveform(16000, samples)
    recogniser.decode_stream(stream)
    return stream.result


@torch.no_grad()
def behind(model: Any, samples: np.ndarray[Any, Any], prompt: list[int], tokens: list[str]) -> tuple[Tensor, Tensor]:
    """How far each token's logit is below the best by torch's own forward, and the spread of logits.

    sherpa-onnx hears log-mel energies with zeros behind, where Whisper's own feature extractor has silence, and makes
    them a little differently.
    """
    extractor = transformers.WhisperFeatureExtractor(feature_size=80)
    mel = torch.from_numpy(extractor(samples, sampling_rate=16000, padding=False, return_tensors="np").input_features)
    hidden = model.model.encoder(nn.functional.pad(mel, (0, 3000 - mel.shape[2])))
    found = [int(token[:-1], 16) for token in tokens]
    logits = model(encoder_outputs=hidden, decoder_input_ids=torch.tensor([prompt + found]), use_cache=False).logits[0]
    logits = logits[len(prompt) - 1: -1]
    return logits.max(1).values - logits[range(len(found)), found], logits.std(1)


def test_the_files_say_what_torch_says(exported: tuple[Any, Path]) -> None:
    model, folder = exported
    encoder, decoder = (onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"])
                        for name in whisper.FILES[:2])
    mel = torch.randn(2, 80, 3000, generator=torch.Generator().manual_seed(1))
    tokens = torch.tensor([[MANY + 1, 7, 50000, 3, 9], [MANY + 1, 4, 2, 1, MANY]])
    with torch.no_grad():
        expected = model(input_features=mel, decoder_input_ids=tokens).logits.numpy()
    keys, values = encoder.run(None, {"mel": mel.numpy()})
    caches = [np.full((2, 2, 64, 16), 7, np.float32)] * 2  # what is in them is not to be read
    found, start = [], 0
    for size in (2, 1, 2):
        logits, *caches = decoder.run(None, {
            "tokens": tokens[:, start: start + size].numpy(), "in_n_layer_self_k_cache": caches[0],
            "in_n_layer_self_v_cache": caches[1], "n_layer_cross_k": keys, "n_layer_cross_v": values,
            "offset": np.array([start])})
        found.append(logits)
        start += size
    np.testing.assert_allclose(np.concatenate(found, 1), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_sherpa_onnx_hears_what_torch_hears(exported: tuple[Any, Path]) -> None:
    model, folder = exported
    samples = sound(2.3)
    found = heard(folder, samples, language="en", tail_paddings=3000).tokens
    gaps, spread = behind(model, samples, [MANY + 1, MANY + 2, 50359, 50363], found)
    assert len(set(found)) > 2 and (gaps < 0.1 * spread).all(), (gaps, spread, found)
    assert isinstance(heard(folder, samples, language="", task="translate").text, str), "10 s of padding, any language"


def test_the_runtime_takes_a_language_that_the_model_has(exported: tuple[Any, Path]) -> None:
    folder = exported[1]
    for given, spoken in ((None, "en"), ("de", "de")):
        recogniser = sherpa_onnx.load(folder, language=given).offline
        stream = recogniser.create_stream()
        stream.accept_waveform(16000, sound(1.0))
        recogniser.decode_stream(stream)
        assert stream.result.lang == spoken
    with pytest.raises(UserError, match="has no language 'german'; it has en, zh, de"):
        sherpa_onnx.load(folder, language="german")


def test_int8_is_near_and_has_each_table_once(tmp_path: Path) -> None:
    model = tiny(init_std=0.05)
    made = whisper.export_whisper(model, tmp_path, vocabulary(MANY), "int8-dynamic")
    assert "divergence" in made.agreement
    types = {node.op_type for node in onnx.load(tmp_path / "decoder.onnx").graph.node}
    assert "MatMulInteger" in types
    assert (tmp_path / "decoder.onnx").stat().st_size < 1.5 * model.model.decoder.embed_tokens.weight.numel()
    heard(tmp_path, sound(1.0))


def test_english_only(tmp_path: Path) -> None:
    model = tiny(many=False)
    whisper.export_whisper(model, tmp_path, vocabulary(ENGLISH + 1608))
    entries = {one.key: one.value for one in onnx.load(tmp_path / "encoder.onnx").metadata_props}
    assert (entries["is_multilingual"], entries["sot_sequence"], entries["no_timestamps"]) == ("0", "50257", "50362")
    samples = sound(1.7)
    found = heard(tmp_path, samples, tail_paddings=3000).tokens
    gaps, spread = behind(model, samples, [50257, 50362], found)
    assert len(set(found)) > 2 and (gaps < 0.1 * spread).all(), (gaps, spread, found)


def test_ids_are_openais_unless_the_model_has_others() -> None:
    model = tiny()
    assert special_ids(model) == {
        "sot": 50258, "eot": 50257, "translate": 50358, "transcribe": 50359, "sot_lm": 50360, "sot_prev": 50361,
        "no_speech": 50362, "no_timestamps": 50363, "is_multilingual": 1}
    for name, value in {"no_timestamps_token_id": 40000, "task_to_id": {"transcribe": 5, "translate": 6},
                        "is_multilingual": False}.items():
        setattr(model.generation_config, name, value)
    found = special_ids(model)
    assert (found["no_timestamps"], found["transcribe"], found["is_multilingual"]) == (40000, 5, 0)


def test_tokens_are_their_bytes() -> None:
    lines = tokens_txt([b"a", b"", "é".encode(), b"\xff"], 4).splitlines()
    assert [(base64.b64decode(line.split()[0]), int(line.split()[1])) for line in lines] == [
        (b"a", 0), ("é".encode(), 2), (b"\xff", 3)]


@pytest.mark.parametrize("given", ["no whisper", "precision", "short", "vocabulary", "ids"])
def test_what_cannot_be_written_is_refused(given: str, tmp_path: Path) -> None:
    model, names, precision, said = tiny(d_model=4), vocabulary(MANY), "float32", "is not a Whisper model"
    if given == "no whisper":
        model = nn.Linear(3, 3)
    elif given == "precision":
        precision, said = "int3", "there is no precision 'int3'"
    elif given == "short":
        model, said = tiny(d_model=4, max_source_positions=20), "20 positions"
    elif given == "vocabulary":
        names, said = [], "has 0 tokens"
    else:
        model, said = tiny(d_model=4, vocab_size=MANY + 100), "no_timestamps_token_id"
    with pytest.raises(UserError, match=said):
        whisper.export_whisper(model, tmp_path / "made", names, precision)
    assert not (tmp_path / "made").exists()


def test_files_that_differ_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = whisper.convert
    monkeypatch.setattr(whisper, "convert", lambda model, *given, **options: made(tiny(init_std=0.2), *given))
    with pytest.raises(UserError, match="differ from torch's"):
        whisper.export_whisper(tiny(), tmp_path / "made", vocabulary(MANY))
    assert not (tmp_path / "made").exists()
