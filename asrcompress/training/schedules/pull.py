"""pull: for structure tied: the blocks are pulled towards what they are going to share, then tied once.

    loss += p(t) x sum over groups g and their layers l of |W_l - S_g|^2 / |W_l|^2,    S_g the mean of the group

p(t) rises in proportion to the seconds of audio, from 0 to `penalty` at the cut. Unrelated matrices of n layers have
|W_l - S_g|^2 / |W_l|^2 = 1 - 1 / n, equal ones 0.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from asrcompress.compression import budget, modules
from asrcompress.compression.structures.sharing.tied import groups
from asrcompress.options import require
from asrcompress.training.schedules.base import CuttingSchedule, Weights, say_dense


@dataclass(frozen=True)
class PullOptions:
    """How much blocks are pulled together, and until when."""

    penalty: float = 1.0  # weight in the loss just before the cut
    end: float = 0.7  # when blocks are tied: a share of the epochs before the averaged ones

    def __post_init__(self) -> None:
        require(self.penalty >= 0 and 0 < self.end <= 1, "schedule pull: penalty is at least 0, end above 0 and at "
                f"most 1, not {self.penalty:g} and {self.end:g}")


class Pull(CuttingSchedule):
    """A penalty on the distance of blocks to the mean of their group, then one cut."""

    name = "pull"
    Options = PullOptions
    only_for = "tied"

    def start(self, model: nn.Module, weights: Weights, allocation: budget.Allocation) -> None:
        paying = {path: given for path, given in allocation.items() if given is not None}
        shapes = {path: weights[path].shape for path in paying}
        self.groups: list[list[str]] = [list(group) for group in groups(shapes, paying)]
        require(bool(self.groups), "schedule pull: no two of the selected layers have the same shape, so none can be "
                "tied; choose another structure, or select more layers")
        say_dense(self.plan.structure, [path for path in paying if not any(path in group for group in self.groups)])

    def penalty(self, module: Any) -> Tensor | None:
        """What the loss of this step grows by, a scalar; None after the cut."""
        if self.done:
            return None
        weight = self.options.penalty * module.seconds / module.total_seconds / (self.span * self.options.end)
        squares = torch.cat([distances(module.model, group) for group in self.groups])
        module.log_dict({"distance of blocks": squares.detach().mean().sqrt(), "pull": weight})
        return weight * squares.sum()


def distances(model: nn.Module, group: list[str]) -> Tensor:
    """|W_l - S|^2 / |W_l|^2 of the layers at these paths, S their mean: (layers,)."""
    stacked = torch.stack([modules.weight_at(model, path).flatten() for path in group])
    return (stacked - stacked.mean(0)).square().sum(1) / stacked.square().sum(1)
