"""trace_norm: layers start as two factors of full rank, whose decay is a penalty on the nuclear norm of their product.

|W|_* = min (|L|_F^2 + |R|_F^2) / 2 over W = L R; then they are cut to size once. Kliegl, Goyal, Zhao, Srinet and
Shoeybi, "Trace norm regularization and faster inference for embedded speech recognition RNNs", arXiv 1710.09026, 2017.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning import Trainer
from torch import nn

from asrcompress.compression import budget, modules
from asrcompress.compression.structures.low_rank.svd import Svd, SvdOptions
from asrcompress.options import require
from asrcompress.training import surgery
from asrcompress.training.schedules.base import CuttingSchedule, Weights


@dataclass(frozen=True)
class TraceNormOptions:
    """How much the factors decay, and until when."""

    penalty: float = 0.5  # weight decay of both factors, added to the optimizer's
    end: float = 0.7  # when they are cut to size: a share of the epochs before the averaged ones

    def __post_init__(self) -> None:
        require(self.penalty >= 0 and 0 <= self.end <= 1,
                f"schedule trace_norm: penalty is at least 0, end from 0 to 1, not {self.penalty:g} and {self.end:g}")


class TraceNorm(CuttingSchedule):
    """Factors of full rank that decay, then one cut."""

    name = "trace_norm"
    Options = TraceNormOptions
    only_for = "svd"

    def start(self, model: nn.Module, weights: Weights, allocation: budget.Allocation) -> None:
        way: Literal["best", "input", "output"] = self.structure_options.unfolding
        way = "input" if way == "best" else way  # at full rank both are exact
        for path, weight in weights.items():
            surgery.place(model, path, Svd.fit(weight, SvdOptions(rank=weight.numel(), unfolding=way)))

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: Trainer, module: Any, optimizer: torch.optim.Optimizer) -> None:
        """Until the cut the factors decay as AdamW's weights do, apart from what the gradient says."""
        if not self.done:
            keep = 1 - optimizer.param_groups[0]["lr"] * self.options.penalty
            for structure in modules.structured(module.model).values():
                for factor in structure.parameters():
                    factor.mul_(keep)
