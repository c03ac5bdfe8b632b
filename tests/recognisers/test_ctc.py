"""Our own models as recognisers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asrcompress import models, recognisers, save
from asrcompress.cli import main
from asrcompress.errors import UserError
from tests.recognisers import tiny

TINY: dict[str, Any] = {"model": "tdnn", "features": 80, "vocab": 6, "stack": [
    {"dim": 24, "taps": 5, "stride": 2}, {"dim": 24, "taps": 3, "stride": 2}, {"dim": 24, "taps": 3, "repeat": 2}]}


@pytest.fixture
def lang(tmp_path: Path) -> Path:
    """A lang folder of six phones."""
    folder = tmp_path / "lang"
    folder.mkdir()
    (folder / "tokens.txt").write_text("".join(f"{token} {number}\n" for number, token in enumerate(
        ["<blk>", "AA", "B", "CH", "D", "EH"])))
    return folder


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return models.build(TINY).eval()


def test_says_the_best_phones(model: Any, lang: Path) -> None:
    from lhotse import Fbank

    waves = tiny.waves([1.0, 0.6])
    found = recognisers.of(model, lang=lang).transcribe(waves)
    for name, samples, _ in waves:
        x = torch.from_numpy(Fbank().extract(samples, 16000))
        with torch.no_grad():
            best = model(x[None], torch.tensor([len(x)]))[0][0].argmax(-1).tolist()
        changes = [token for before, token in zip([None, *best], best, strict=False) if token not in (before, 0)]
        assert found[name] == " ".join(["<blk>", "AA", "B", "CH", "D", "EH"][token] for token in changes)


def test_transcribe_prints_a_line_a_file(model: Any, lang: Path, tmp_path: Path,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    import soundfile

    waves = tiny.waves([1.0, 0.6])
    save(tmp_path / "m.packed", model)
    for place, (_, samples, rate) in zip("ab", waves, strict=True):  # two files of one name
        (tmp_path / place).mkdir()
        soundfile.write(tmp_path / place / "x.wav", samples, rate, subtype="FLOAT")
    assert not main(["transcribe", str(tmp_path / "m.packed"), "--lang", str(lang), str(tmp_path / "a" / "x.wav"),
                     str(tmp_path / "b" / "x.wav")])
    wanted = recognisers.load(tmp_path / "m.packed", lang=lang).transcribe(waves)
    lines = capsys.readouterr().out.splitlines()
    assert [line.strip() for line in lines] == [f"x {text}".strip() for text in wanted.values()]


def test_distillation_loss_is_that_of_numpy(model: Any, lang: Path) -> None:
    recogniser = recognisers.of(model, lang=lang)
    (x, lens), = recogniser.calibration(tiny.waves([1.0, 0.6]))
    torch.manual_seed(1)
    teacher = models.build(TINY).eval()
    with torch.no_grad():
        found = float(recogniser.distillation_loss(teacher, (x, lens)))
        (p, frames), (q, _) = teacher(x, lens), model(x, lens)
    rows = [(np.exp(a) * (a - b)).sum(-1)[:n] for a, b, n in zip(p.double().numpy(), q.double().numpy(),
                                                                 frames.tolist(), strict=True)]
    assert found == pytest.approx(np.concatenate(rows).mean(), rel=1e-4)


def test_bad_input_gets_a_sentence(model: Any, lang: Path) -> None:
    with pytest.raises(UserError, match="--lang"):
        recognisers.of(model)
    (lang / "tokens.txt").write_text("<blk> 0\n")
    with pytest.raises(UserError, match="has 1 tokens, and the model 6 outputs"):
        recognisers.of(model, lang=lang)


def test_speech_without_a_frame_has_no_tokens(model: Any, lang: Path) -> None:
    short = [("empty", np.zeros(0, np.float32), 8000), ("short", np.zeros(100, np.float32), 16000)]
    recogniser, silent, waves = recognisers.of(model, lang=lang), {"empty": "", "short": ""}, tiny.waves([1.0])
    assert recogniser.transcribe(short) == silent
    assert recogniser.transcribe([*short, *waves]) == {**silent, **recogniser.transcribe(waves)}
    (_, lens), = recogniser.calibration([*short, *waves])
    assert len(lens) == 1
