"""A rate is held to its target, soon and closely, from above and from below."""

import pytest
import torch
from torch import nn

from asrcompress.compression import quantization
from asrcompress.compression.rate import RateControl


@pytest.mark.parametrize("start", [1.7, 3.0])
def test_the_rate_settles_at_its_target_within_a_short_training(start: float) -> None:
    torch.manual_seed(0)
    task = nn.Linear(240, 200)
    model = quantization.apply(nn.Sequential(task), "epr", bits=start)
    one = quantization.attached(model)["0.weight"]
    one.bits = 2.0
    control = RateControl()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 250)
    rates = []
    for step in range(250):
        optimizer.zero_grad()
        loss = (one.tensor() - task.weight.detach()).square().mean() * 100
        (loss + control.penalty(model, step / 250)).backward()
        optimizer.step()
        schedule.step()
        rates.append(control.rate)
    assert control.rate == pytest.approx(2.0, rel=0.03)
    assert sum(rates[-50:]) / 50 == pytest.approx(2.0, rel=0.05)


def test_a_model_without_rates_has_no_penalty() -> None:
    assert RateControl().penalty(nn.Linear(4, 4), 0.5) is None
