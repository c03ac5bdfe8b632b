"""What quantizers ask of a training: schedules follow its progress, and rates are held to their target."""

import math
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor

from asrcompress.compression import quantization

PULL = 0.1  # how fast the rate's weight in the loss grows while the rate is above its target


class QuantizationTraining(Callback):
    """Before each step, `advance` of every quantizer; in its loss, the bits of those that have a rate.

    The loss grows by weight x bits per value. The weight is found, not given: it is multiplied by
    exp(PULL (rate / target - 1)) after each step, so that the rate settles at its target (dual ascent).
    """

    def __init__(self, weight: float = 0.01) -> None:
        self.weight, self.rate = weight, float("nan")

    def state_dict(self) -> dict[str, Any]:
        return {"weight": self.weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weight = state["weight"]

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, index: int) -> None:
        for one in quantization.attached(module.model).values():
            one.advance(module.seconds / module.total_seconds)

    def penalty(self, module: Any) -> Tensor | None:
        """What the loss of this step grows by, a scalar; None where no quantizer has a rate.

        It is part of the loss, as ddp reduces each gradient once a step: in one backward pass.
        """
        attached = quantization.attached(module.model).values()
        rated = [(one, rate) for one in attached if (rate := one.rate()) is not None]
        if not rated:
            return None
        values = sum(math.prod(one.shape) for one, _ in rated)
        bits = torch.stack([rate for _, rate in rated]).sum() / values
        target = sum(one.bits * math.prod(one.shape) for one, _ in rated) / values  # type: ignore[operator,misc]
        self.rate = float(module.mean_of_ranks(bits.detach()))  # each drew its own sample, and needs the same weight
        penalty = self.weight * bits
        self.weight = min(10.0, max(1e-6, self.weight * math.exp(PULL * max(-1.0, min(1.0, self.rate / target - 1)))))
        module.log_dict({"bits per value": self.rate, "rate weight": self.weight})
        return penalty
