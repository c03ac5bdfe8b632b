"""The loss on held-out speech, utterance by utterance, and the command that measures sensitivity with it."""

import math
from pathlib import Path

import pytest
import torch
from lhotse import load_manifest
from torch.nn import functional

from asrcompress import cli, models
from asrcompress.compression import save_model
from asrcompress.compression.budget import weights
from asrcompress.errors import UserError
from asrcompress.lang import lexicon as lexicons
from asrcompress.lang.tokens import read_symbols
from asrcompress.models import AcousticModel
from asrcompress.training.held_out import ctc_loss
from tests import prepared


def conformer(corpus: Path) -> AcousticModel:
    torch.manual_seed(0)
    return models.build({"model": "conformer", "features": 80, "vocab": len(symbols(corpus)), "dim": 16, "heads": 2,
                         "hidden": 32, "kernel": 3, "blocks": 2, "front": 12}).eval()


def symbols(corpus: Path) -> dict[str, int]:
    return read_symbols(prepared.lang(corpus) / "tokens.txt")


@torch.no_grad()
def test_it_is_that_of_the_utterances_one_by_one(tiny_corpus: Path) -> None:
    data, lang, model = prepared.data(tiny_corpus), prepared.lang(tiny_corpus), conformer(tiny_corpus)
    encode = lexicons.Encoder(lexicons.read(lang / "lexicon.txt"), symbols(tiny_corpus))
    total = frames = 0.0
    for cut in load_manifest(data / "dev.jsonl.gz"):
        x, target = torch.from_numpy(cut.load_features())[None], torch.tensor([encode(cut.supervisions[0].text)])
        log_probs, lens = model(x, torch.tensor([x.shape[1]]))
        total += float(functional.ctc_loss(log_probs.transpose(0, 1), target, lens, torch.tensor([target.shape[1]]),
                                           reduction="sum"))
        frames += int(lens)
    assert math.isfinite(total) and ctc_loss(data, "dev", lang)(model) == pytest.approx(total / frames, rel=1e-5)


def test_mistakes_are_sentences(tiny_corpus: Path) -> None:
    data, lang = prepared.data(tiny_corpus), prepared.lang(tiny_corpus)
    with pytest.raises(UserError, match="0 minutes of held-out speech are none"):
        ctc_loss(data, "dev", lang, 0)
    other = models.build({"model": "tdnn", "vocab": 3, "stack": [{"dim": 8, "taps": 3, "stride": 4}]})
    with pytest.raises(UserError, match="the model has 3 tokens and .* give the lang folder"):
        ctc_loss(data, "dev", lang)(other)


def test_sensitivity_writes_what_a_budget_takes(tiny_corpus: Path, tmp_path: Path,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    model, out = tmp_path / "m.safetensors", tmp_path / "w.json"
    save_model(model, conformer(tiny_corpus))
    words = ["sensitivity", "--model", str(model), *prepared.folders(tiny_corpus), "--out", str(out), "--size", "0.5"]
    groups = ["--group", "*.query,*.key", "--group", "blocks.*.ff?.*"]
    assert cli.main([*words, "--group", "moon"]) == 1
    assert "no layer is called moon" in capsys.readouterr().err and not out.exists()
    assert cli.main([*words, *groups]) == 0
    assert "loss + per M saved" in capsys.readouterr().out
    assert weights.read(out).keys() == {"*.query", "*.key", "blocks.*.ff?.*"}
    assert cli.main(["compress", "--model", str(model), "--out", str(tmp_path / "small.safetensors"), "structure=svd",
                     "structure.rank_multiple=1", "size=0.7", f"budget.weights={out}"]) == 0
