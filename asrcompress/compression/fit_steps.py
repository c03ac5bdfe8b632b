"""fit_steps: the last screw of a model that was trained in a number of bytes: one factor on all its steps."""

import math

import torch
from torch import nn

from asrcompress.compression import quantization
from asrcompress.compression.packed import writer
from asrcompress.compression.parametrization import copy_model
from asrcompress.compression.quantization.epr import PACE, Epr
from asrcompress.compression.structures import CannotShrink
from asrcompress.options import require

WIDEST = 4.0  # times that a step is made wider
TRIES = 10
CLOSE = 0.998  # of the target, where the search for a factor ends


def fit_steps(model: nn.Module, target: int) -> nn.Module:
    """A copy whose file has at most `target` bytes: the steps of all its `epr` tensors are made wider alike.

    For a model that was trained in these tensors, whose rate came out a little above its target. Steps are not made
    narrower: after training, other steps than those of the training cost more than the bytes give back (1 % on the
    bytes of a Conformer at 1/20: a divergence of 0.057 for 0.047). Errors: UserError for a longer model without such
    tensors, CannotShrink where even steps `WIDEST` times as wide do not do.
    """
    small = copy_model(model)
    if (size := writer.length(small)) <= target:
        return small
    tensors = [one for one in quantization.attached(small).values() if isinstance(one, Epr)]
    require(bool(tensors), f"the file would take {size:,} bytes, and no tensor has quantization epr, whose steps could "
            "be changed")
    kept = [one.log_step.detach().clone() for one in tensors]

    @torch.no_grad()
    def length(factor: float) -> int:
        for one, log_step in zip(tensors, kept, strict=True):
            one.log_step.copy_(log_step + math.log(factor) / PACE)
        return writer.length(small)

    low, high = 1.0, WIDEST
    if (size := length(high)) > target:
        raise CannotShrink(f"{target:,} bytes cannot be reached by wider steps; the smallest is {size:,}")
    for _ in range(TRIES):
        middle = math.sqrt(low * high)
        size = length(middle)
        low, high = (low, middle) if size <= target else (middle, high)
        if CLOSE * target <= size <= target:
            break
    length(high)
    return small
