"""The recogniser of a third party that docs/recognisers.md shows."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from asrcompress import compress
from asrcompress.compression import distil
from tests.recognisers import tiny
from tests.test_docs import ROOT, blocks


class Model(nn.Module):
    """(N, samples) -> log-posteriors (N, T, 28)."""

    def __init__(self) -> None:
        super().__init__()
        self.front, self.out = nn.Conv1d(1, 24, 400, 320), nn.Linear(256, 28)
        self.hidden = nn.Sequential(nn.Linear(24, 256), nn.ReLU(), nn.Linear(256, 256))

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        hidden = self.front(samples[:, None]).transpose(1, 2).relu()
        return self.out(self.hidden(hidden).relu()).mul(30).log_softmax(-1)


def test_the_documented_recogniser_is_calibrated_evaluated_and_distilled(tmp_path: Path,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    waves = tiny.waves([1.0, 0.7])
    tiny.prepared(tmp_path / "data", waves)
    torch.manual_seed(0)
    here: dict[str, Any] = {"model": Model().eval(), "waves": waves, "Path": Path}
    *_, letters, use = blocks((ROOT / "docs" / "recognisers.md").read_text(), "python")
    assert len(letters.strip().splitlines()) <= 40
    exec(letters, here)
    exec(use.replace("dev-clean-2", "dev"), here)
    assert here["result"].score.words == 4
    assert {line.split()[0] for line in Path("exp/svd-0.5/dev/hyp.txt").read_text().splitlines()} == {"u0", "u1"}
    made, batches = here["Letters"], list(here["Letters"](here["model"]).calibration(waves))
    small, _ = compress(here["model"], "svd", rank=8)
    with torch.no_grad():
        before = float(made(small).distillation_loss(here["model"], batches[0]))
    taught = distil.distil(small, here["model"], batches, 10, lr=1e-3, loss=lambda one, number: made(
        one).distillation_loss(here["model"], batches[number]))
    with torch.no_grad():
        assert float(made(taught).distillation_loss(here["model"], batches[0])) < before
