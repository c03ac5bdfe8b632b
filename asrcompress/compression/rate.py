"""rate: a training is held to the bits that its quantizers are meant to take, through a weight in its loss.

    control = RateControl()
    penalty = control.penalty(model, progress=step / steps)    # each step; None where no quantizer has a rate
    (loss + penalty).backward()
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from asrcompress.compression import quantization

PULL = 0.3      # how fast the weight grows while the rate is above where it should be
BRAKE = 20.0    # how much it is moved for the moment: without it the rate swings and ends beside its target
FARTHEST = 0.1  # of the target: a larger distance moves it no more
FALL = 0.5      # of the training: by then a rate that started above its target is to have come down


class RateControl:
    """The loss grows by weight x bits per value, of all quantizers that have a rate.

    The weight is found, not given: with d = rate / wanted - 1 it is multiplied by exp(PULL d) after each step (dual
    ascent) and, for this step only, by exp(BRAKE d): the integral and the proportional part of a controller. What is
    wanted is the target, and for a rate that starts above it a straight way down: pushed at once, the rate falls far
    below, and what is lost so is not found again while the learning rate falls.
    """

    def __init__(self) -> None:
        self.weight, self.now, self.rate, self.first = 0.01, 0.01, float("nan"), float("nan")

    def penalty(self, model: nn.Module, progress: float,
                mean_of_ranks: Callable[[Tensor], Tensor] = lambda bits: bits) -> Tensor | None:
        """What the loss of this step grows by, a scalar; `progress` of the training is from 0 to 1."""
        rated = [(one, rate) for one in quantization.attached(model).values() if (rate := one.rate()) is not None]
        if not rated:
            return None
        values = sum(math.prod(one.shape) for one, _ in rated)
        bits = torch.stack([rate for _, rate in rated]).sum() / values
        target = sum(one.bits * math.prod(one.shape) for one, _ in rated) / values  # type: ignore[operator,misc]
        self.rate = float(mean_of_ranks(bits.detach()))  # each drew its own sample, and needs the same weight
        self.first = self.rate if math.isnan(self.first) else self.first
        wanted = target + max(0.0, self.first - target) * max(0.0, 1 - progress / FALL)
        distance = self.rate / wanted - 1
        self.weight = min(10.0, max(1e-6, self.weight * math.exp(PULL * max(-1.0, min(1.0, distance)))))
        self.now = self.weight * math.exp(BRAKE * max(-FARTHEST, min(FARTHEST, distance)))
        return self.now * bits
