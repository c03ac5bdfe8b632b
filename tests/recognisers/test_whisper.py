"""Whisper of Hugging Face's: from a folder to a packed file that transcribes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asrcompress import compress, recognisers, save
from asrcompress.cli import main
from asrcompress.compression import distil
from asrcompress.errors import UserError
from tests.recognisers import tiny

SECONDS = (1.5, 0.7, 2.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Whisper as Hugging Face keeps it."""
    return tiny.whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture
def recogniser(folder: Path) -> Any:
    return recognisers.load(f"hf:{folder}")


def test_tokens_become_the_text_that_hugging_face_makes_of_them(recogniser: Any, folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "ab aé ba"
    tokens = tokenizer(text).input_ids
    assert recogniser.text([*recogniser.prompt(), *tokens, 261]) == text == tokenizer.decode(tokens)


@pytest.mark.parametrize("beam", [1, 6])
def test_transcribes_as_generate_does_in_the_order_of_the_waves(recogniser: Any, beam: int) -> None:
    waves, greedy = tiny.waves(SECONDS), recogniser.transcribe(tiny.waves(SECONDS))
    found = recognisers.of(recogniser.model, beam=beam).transcribe(waves)
    assert (found == greedy) == (beam == 1)
    assert list(found) == ["u0", "u1", "u2"]
    for name, samples, _ in waves:
        heard = recogniser.extractor([samples], sampling_rate=16000, return_tensors="pt").input_features
        tokens = recogniser.model.generate(heard, do_sample=False, num_beams=beam, max_new_tokens=12)[0]
        assert found[name] == recogniser.text(tokens.tolist())
    assert any(found.values())


def test_speech_longer_than_a_window_is_transcribed(recogniser: Any) -> None:
    assert set(recogniser.transcribe(tiny.waves([31.0, 1.0]))) == {"u0", "u1"}


def test_speech_without_a_frame_has_no_text(recogniser: Any) -> None:
    short, waves = [("empty", np.zeros(0, np.float32), 8000)], tiny.waves([1.0])
    assert recogniser.transcribe([*short, *waves]) == {"empty": "", **recogniser.transcribe(waves)}


def test_other_rates_are_resampled(recogniser: Any) -> None:
    name, samples, _ = tiny.waves([1.0], tone=True)[0]
    half = samples[::2].copy()
    window = next(recogniser.calibration([(name, half, 8000)]))["input_features"]
    wanted = next(recogniser.calibration([(name, samples, 16000)]))["input_features"]
    assert (window - wanted).abs().mean() < 0.1


def test_calibration_is_full_windows_and_what_the_model_writes(recogniser: Any) -> None:
    batches = list(recogniser.calibration(tiny.waves([14.0, 14.0, 14.0])))
    assert [tuple(batch["input_features"].shape) for batch in batches] == [(1, 80, 3000)] * 2
    generated = recogniser.model.generate(batches[0]["input_features"], do_sample=False, num_beams=1,
                                          max_new_tokens=12)[0].tolist()
    ordinary = [token for token in generated if token < 256]
    assert batches[0]["decoder_input_ids"][0].tolist() == [257, 260, *ordinary]


@pytest.mark.parametrize("way", [{"quantization": "int8"}, {"structure": "svd", "rank": 8, "data_aware": True}])
def test_a_packed_file_transcribes_as_the_model_that_was_written(recogniser: Any, tmp_path: Path,
                                                                way: dict[str, Any]) -> None:
    waves = tiny.waves(SECONDS)
    small, _ = compress(recogniser.model, **way, calibration=list(recogniser.calibration(waves)))
    for name in ("small.packed", "small.safetensors"):
        written = save(tmp_path / name, small)
        again = recognisers.load(tmp_path / name)
        assert again.transcribe(waves) == recognisers.of(written).transcribe(waves)
        assert again.said == recogniser.said


def test_embeddings_get_a_quantization_of_their_own(recogniser: Any) -> None:
    from asrcompress.compression import Plan, quantization

    small, _ = compress(recogniser.model, Plan(quantization="int4", embeddings="int8"))
    kinds = {path: one.name for path, one in quantization.attached(small).items()}
    embeddings = {path: kind for path, kind in kinds.items() if "embed" in path}
    assert embeddings and set(embeddings.values()) == {"int8"}
    assert {kind for path, kind in kinds.items() if path not in embeddings} == {"int4"}
    assert torch.equal(small.proj_out.weight, small.model.decoder.embed_tokens.weight)
    assert len(embeddings) == 3  # tokens, and the positions of encoder and decoder; the output is the tokens' again
    with pytest.raises(UserError, match="embeddings=int8 is beside the quantization"):
        Plan("svd", options={"rank": 8}, embeddings="int8")
    kept, _ = compress(recogniser.model, Plan(quantization="int4", embeddings="float32"))
    assert not [path for path in quantization.attached(kept) if "embed" in path]


def test_distillation_loss_is_that_of_numpy_and_distilling_lowers_it(recogniser: Any) -> None:
    batches = list(recogniser.calibration(tiny.waves([2.0, 2.0])))
    teacher = recogniser.model
    small, _ = compress(teacher, "svd", rank=8)
    student = recognisers.of(small)
    with torch.no_grad():
        found = float(student.distillation_loss(teacher, batches[0]))
        ours, theirs = small(**batches[0]), teacher(**batches[0])
    p, q = (torch.softmax(one.logits, -1).double().numpy() for one in (theirs, ours))
    hidden, said = (one.encoder_last_hidden_state.double().numpy() for one in (theirs, ours))
    wanted = (p * np.log(p / q)).sum(-1).mean() + ((hidden - said) ** 2).mean() / hidden.var(ddof=1)
    assert found == pytest.approx(wanted, rel=1e-3)
    taught = distil.distil(small, teacher, batches, 8, lr=1e-3, loss=lambda one, number: recognisers.of(
        one).distillation_loss(teacher, batches[number]))
    with torch.no_grad():
        assert float(recognisers.of(taught).distillation_loss(teacher, batches[0])) < 0.9 * found


def test_normalise_counts_words_as_openai_does(recogniser: Any) -> None:
    assert recogniser.normalise("Mr. Quilter, we've 2 dogs!") == recogniser.normalise("MISTER QUILTER WE'VE TWO DOGS")


def test_from_the_folder_to_a_row(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                  monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny.prepared(tmp_path / "data", tiny.waves([1.0, 0.6, 0.8]))
    monkeypatch.chdir(tmp_path)
    assert not main(["compress", "--model", f"hf:{folder}", "--out", "small.packed", "--calibrate", str(data),
                     "--calibrate-set", "dev", "--distil", "2", "quantization=int4", "embeddings=int8", "coder=range"])
    assert not main(["evaluate", f"hf:{folder}", "--data", str(data), "--set", "dev", "--out", "dense"])
    assert not main(["evaluate", "small.packed", "--data", str(data), "--set", "dev", "--out", "int4", "--dense",
                     "dense", "--rows", "results.jsonl", "--row", "name=int4"])
    row = json.loads(Path("results.jsonl").read_text())
    assert row["packed_bytes"] == Path("small.packed").stat().st_size
    assert (row["name"], row["test_set"], row["words"]) == ("int4", "dev", 6)
    assert row["wer"] is not None and row["p_better_than_dense"] is not None and row["rtf"] > 0
    capsys.readouterr()
    audio = [str(path) for path in sorted(tmp_path.glob("data/*.wav"))]
    assert not main(["transcribe", "small.packed", *audio])
    said = [line.rstrip() for line in capsys.readouterr().out.split("\n") if line]
    assert said == Path("int4/dev/hyp.txt").read_text().strip("\n").split("\n")


def test_exported_from_the_command_line_sherpa_onnx_transcribes(folder: Path, tmp_path: Path,
                                                                capsys: pytest.CaptureFixture[str]) -> None:
    small, _ = compress(recognisers.load_model(f"hf:{folder}"), quantization="int8")
    save(tmp_path / "small.packed", small)
    device = tmp_path / "device"
    assert not main(["export", str(tmp_path / "small.packed"), "--out", str(device)])
    data = tiny.prepared(tmp_path / "data", tiny.waves([1.0, 0.6]))
    assert not main(["decode", "--model", str(device), "--data", str(data), "--set", "dev", "--out",
                     str(tmp_path / "out")])
    assert [line.split()[0] for line in (tmp_path / "out" / "hyp.txt").read_text().split("\n") if line] == ["u0", "u1"]
    capsys.readouterr()
    for more in (["--lang", str(tmp_path)], ["--batch1"], ["--precision", "int4"]):
        assert main(["export", str(tmp_path / "small.packed"), "--out", str(tmp_path / "other"), *more]) == 1
        assert "hisper" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    assert main(["decode", "--model", str(device), "--data", str(data), "--set", "dev", "--out", str(tmp_path / "g"),
                 "--graph", "HLG.fst", "--words", "words.txt"]) == 1
    assert "leave the graph away" in capsys.readouterr().err


def test_bad_folders_get_a_sentence(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"], "model_type": "bert"}')
    with pytest.raises(UserError, match="recognisers are WhisperForConditionalGeneration"):
        recognisers.load(f"hf:{tmp_path}")
    with pytest.raises(UserError, match="cannot be loaded"):
        recognisers.load(f"hf:{tmp_path}/nothing")
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            (pickled / path.name).write_bytes(path.read_bytes())
    torch.save(load_state(folder), pickled / "pytorch_model.bin")
    with pytest.raises(UserError, match="safetensors"):
        recognisers.load(f"hf:{pickled}")
    assert main(["transcribe", f"hf:{folder}", str(tmp_path / "no.wav")]) == 1
    assert "no.wav" in capsys.readouterr().err
    with pytest.raises(UserError, match="graph"):
        recognisers.load(f"hf:{folder}", graph=Path("HLG.npz"))


def load_state(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_a_model_without_a_tokenizer_says_so() -> None:
    with pytest.raises(UserError, match="does not say how its outputs become words"):
        recognisers.of(torch.nn.Linear(2, 2))


def test_a_language_that_the_model_has_not_is_a_sentence(recogniser: Any) -> None:
    model = recogniser.model
    with pytest.raises(UserError, match=r"no language 'de' \(--language\); it has en$"):
        recognisers.of(model, language="de")
    model.generation_config.is_multilingual, model.generation_config.lang_to_id = True, {"<|en|>": 258, "<|de|>": 262}
    with pytest.raises(UserError, match="no language 'xx' .*; it has en, de"):
        recognisers.of(model, language="xx")
    for language in ("de", None):
        assert recognisers.of(model, language=language)
    assert recognisers.of(model)
