"""wav2vec 2.0 of Hugging Face's: compressed, saved, loaded and exported it says the same."""

from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers

from asrcompress import compress, recognisers, save
from asrcompress.compression import distil
from asrcompress.runtimes.export import export
from tests.recognisers import tiny

SECONDS = (1.5, 0.7, 2.0)


@pytest.fixture(params=["group", "layer"])
def recogniser(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A random model, with either of its norms."""
    return recognisers.load(f"hf:{tiny.wav2vec2(tmp_path / 'wav2vec2', request.param)}")


def test_transcribes_as_hugging_face_does(recogniser: Any, tmp_path: Path) -> None:
    processor = transformers.AutoTokenizer.from_pretrained(tmp_path / "wav2vec2")
    waves = tiny.waves(SECONDS)
    found = recogniser.transcribe(waves)
    assert list(found) == ["u0", "u1", "u2"] and any(found.values())
    for name, samples, _ in waves:  # alone, without padding
        heard = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
        with torch.no_grad():
            logits = recogniser.model(torch.from_numpy(heard)[None]).logits[0]
        kept = [token for token, _ in groupby(logits.argmax(-1).tolist()) if token]
        said = processor.decode(kept, group_tokens=False).replace("<unk>", "")
        assert found[name] == " ".join(said.replace("<s>", "").replace("</s>", "").split())


@pytest.mark.parametrize("way", [{"quantization": "int8"}, {"structure": "svd", "rank": 8, "data_aware": True},
                                 {"structure": "svd", "rank": 8, "quantization": "int4"}])
def test_compressed_saved_loaded_and_exported_it_says_the_same(recogniser: Any, tmp_path: Path,
                                                               way: dict[str, Any]) -> None:
    check_the_way(recogniser, tmp_path, way)


@pytest.mark.slow
@pytest.mark.parametrize("way", [{"quantization": "int8"}, {"structure": "svd", "size": 0.5, "data_aware": True,
                                                            "quantization": "int4", "coder": "range"}])
def test_so_it_does_at_the_size_of_base(tmp_path: Path, way: dict[str, Any]) -> None:
    recogniser = recognisers.load(f"hf:{tiny.wav2vec2(tmp_path / 'wav2vec2', base=True)}")
    assert sum(parameter.numel() for parameter in recogniser.model.parameters()) > 90e6
    check_the_way(recogniser, tmp_path, way)


def check_the_way(recogniser: Any, tmp_path: Path, way: dict[str, Any]) -> None:
    waves = tiny.waves(SECONDS)
    batches = list(recogniser.calibration(waves))
    small, _ = compress(recogniser.model, **way, calibration=batches)
    written = save(tmp_path / "small.packed", small)
    again = recognisers.load(tmp_path / "small.packed")
    assert again.transcribe(waves) == recognisers.of(written).transcribe(waves)
    export(again.model, tmp_path / "small.onnx", {"input_values": batches[0]["input_values"]}, runtime="onnxruntime")
    session = onnxruntime.InferenceSession(str(tmp_path / "small.onnx"))
    said = session.run(None, {"input_values": batches[0]["input_values"].numpy()})[0]
    with torch.no_grad():
        wanted = again.model(batches[0]["input_values"]).logits.numpy()
    np.testing.assert_allclose(said, wanted, atol=1e-3)


def test_distillation_loss_is_that_of_numpy_and_distilling_lowers_it(recogniser: Any) -> None:
    batches = list(recogniser.calibration(tiny.waves(SECONDS)))
    teacher = recogniser.model
    small, _ = compress(teacher, "svd", rank=8)
    with torch.no_grad():
        found = float(recognisers.of(small).distillation_loss(teacher, batches[0]))
        p, q = (torch.softmax(one(**batches[0]).logits, -1).double().numpy() for one in (teacher, small))
    assert found == pytest.approx((p * np.log(p / q)).sum(-1).mean(), rel=1e-3)
    taught = distil.distil(small, teacher, batches, 10, lr=1e-3, loss=lambda one, number: recognisers.of(
        one).distillation_loss(teacher, batches[number]))
    with torch.no_grad():
        assert float(recognisers.of(taught).distillation_loss(teacher, batches[0])) < 0.9 * found


def test_normalise_keeps_letters_and_apostrophes(recogniser: Any) -> None:
    assert recogniser.normalise("Don't, she said.") == "DON'T SHE SAID"


def test_speech_without_a_frame_has_no_text(recogniser: Any) -> None:
    short = [("empty", np.zeros(0, np.float32), 8000), ("short", np.zeros(8, np.float32), 16000)]
    waves = tiny.waves([1.0])
    assert recogniser.transcribe([*short, *waves]) == {"empty": "", "short": "", **recogniser.transcribe(waves)}
    frame = next(length for length in range(100) if recogniser._frames(np.zeros(length)) > 0)
    assert list(recogniser.transcribe([("frame", waves[0][1][:frame], 16000)])) == ["frame"]
