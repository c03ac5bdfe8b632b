"""scratch: every layer is a random member of the structure from the start.

With structure svd this is a bottleneck (Sainath et al., ICASSP 2013), with semi_orthogonal TDNN-F (Povey et al.,
Interspeech 2018).
"""

from dataclasses import dataclass

from torch import nn

from asrcompress.compression import Plan, budget, structures
from asrcompress.training.options import TrainingOptions
from asrcompress.training.schedules.base import Schedule, Weights, place_if_smaller, say_dense, without


@dataclass(frozen=True)
class ScratchOptions:
    """Which layers stay as they are."""

    keep: tuple[str, ...] = ("output",)  # globs over layers that stay dense


class Scratch(Schedule):
    """Random structures before the first step; nothing is known of a random weight, so global_greedy is uniform."""

    name = "scratch"
    Options = ScratchOptions

    def __init__(self, plan: Plan, options: ScratchOptions, training: TrainingOptions) -> None:
        super().__init__(without(plan, options.keep), options, training)

    def allocate(self, weights: Weights, size: float | None) -> budget.Allocation:
        greedy = self.plan.budget == "global_greedy"
        return self._allocate("uniform" if greedy else self.plan.budget, {} if greedy else self.plan.budget_options,
                              weights, size)

    def start(self, model: nn.Module, weights: Weights, allocation: budget.Allocation) -> None:
        paying = {path: given for path, given in allocation.items() if given is not None}
        shapes = {path: weights[path].shape for path in paying}
        made = structures.init_all(self.plan.structure, shapes, paying, self.plan.seed)
        for path, new in made.items():
            place_if_smaller(model, path, weights[path], new)
        say_dense(self.plan.structure, [path for path in paying if path not in made])
