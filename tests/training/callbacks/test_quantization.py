"""The schedule is followed, resuming keeps the weight of the rate."""

import math
from types import SimpleNamespace

import torch
from torch import nn

from asrcompress.compression import quantization
from asrcompress.training.callbacks.quantization import QuantizationTraining


def module_with(model: nn.Module) -> SimpleNamespace:
    return SimpleNamespace(model=model, seconds=0.0, total_seconds=100.0, log_dict=lambda *_, **__: None,
                           mean_of_ranks=lambda value: value)


def test_schedules_follow_the_progress_of_the_training() -> None:
    torch.manual_seed(0)
    model = quantization.apply(nn.Sequential(nn.Linear(40, 25)), "pruned", density=0.1, schedule="cubic", until=0.5)
    module, callback = module_with(model), QuantizationTraining()
    kept = []
    for seconds in (0.0, 25.0, 50.0):
        module.seconds = seconds
        callback.on_train_batch_start(None, module, None, 0)
        kept.append(int(quantization.attached(model)["0.weight"].mask.sum()))
    assert kept == [1000, round(1000 * (0.1 + 0.9 * 0.5**3)), 100]


def test_the_weight_of_the_rate_is_resumed() -> None:
    torch.manual_seed(0)
    model = quantization.apply(nn.Sequential(nn.Linear(60, 50)), "epr", bits=3.0)
    quantization.attached(model)["0.weight"].bits = 1.5
    module, callback = module_with(model), QuantizationTraining()
    module.seconds = 50.0  # when the rate should have come down
    for _ in range(5):
        callback.penalty(module).backward()
    again = QuantizationTraining()
    again.load_state_dict(callback.state_dict())
    assert again.control.first == callback.control.first > 3
    assert again.control.weight == callback.control.weight > QuantizationTraining().control.weight
    older = QuantizationTraining()
    older.load_state_dict({"weight": 0.5})  # as it was before `first`
    assert older.control.weight == 0.5 and math.isnan(older.control.first)


def test_a_model_without_rates_is_left_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    assert QuantizationTraining().penalty(module_with(model)) is None
