"""What compression during training is: a callback that makes layers small before, or while, they are trained.

Every schedule ends before the epochs whose weights are averaged, so that those have the same shapes.
"""

import gc
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from lightning import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from asrcompress.compression import Plan, budget, modules, structures
from asrcompress.compression.structures import Structure
from asrcompress.errors import UserError
from asrcompress.options import require
from asrcompress.training import surgery
from asrcompress.training.options import TrainingOptions

Weights = Mapping[str, Tensor]


class Schedule(Callback):
    """Compresses as `plan` says, when `options` say.

    A schedule is one file of this folder: a subclass whose `name` is the file's and whose `Options` are its dataclass.
    Errors: UserError for a plan or a training that it is not for.
    """

    name: ClassVar[str] = ""
    Options: ClassVar[type]

    def __init__(self, plan: Plan, options: Any, training: TrainingOptions) -> None:
        require(plan.structure != "dense",
                f"schedule={self.name} needs a structure to compress with: add structure=svd, or another one")
        self.plan, self.options, self.training, self.total = plan, options, training, 0
        self.family = structures.family(plan.structure)
        self.structure_options = structures.make_options(plan.structure, plan.options)

    def begin(self, model: Any) -> None:
        """Make a dense model what it is before its first step; to be called before the optimizer is made.

        Errors: UserError for a model that is compressed already, and for a size that cannot be reached.
        """
        if modules.structured(model):
            raise UserError("compression during training starts from a dense model, and this one is compressed already")
        self.total = sum(parameter.numel() for parameter in model.parameters())
        weights = selected(model, self.plan)
        self.start(model, weights, self.allocate(weights, self.plan.size))  # an impossible size is an error now

    def start(self, model: nn.Module, weights: Weights, allocation: budget.Allocation) -> None:
        """Replace what is to be structured from the first step on, by default nothing."""

    def allocate(self, weights: Weights, size: float | None) -> budget.Allocation:
        """What each layer gets at a size."""
        return self._allocate(self.plan.budget, self.plan.budget_options, weights, size)

    def _allocate(self, name: str, options: Mapping[str, Any], weights: Weights,
                  size: float | None) -> budget.Allocation:
        weights = {path: weight.detach() for path, weight in weights.items()}
        request = budget.Request(self.family, weights, self.structure_options, size, self.total)
        return budget.allocate(name, request, options)


class CuttingSchedule(Schedule):
    """A schedule that brings the model to smaller sizes at its `milestones`."""

    only_for: ClassVar[str] = ""  # the one structure that it is for; empty: any

    def __init__(self, plan: Plan, options: Any, training: TrainingOptions) -> None:
        super().__init__(plan, options, training)
        require(plan.size is not None,
                f"schedule={self.name} needs size=..., the fraction of the dense model to end with")
        average = training.average
        require(average.how == "last" and average.count < training.epochs,
                f"schedule={self.name} changes shapes, so it needs training.average.how=last and more training.epochs "
                f"than the {average.count} whose weights are averaged")
        self.cuts, self.done = self.milestones(structures.checked_size(plan.size) or 0), 0
        self.span = 1 - average.count / training.epochs
        require(self.only_for in ("", plan.structure), f"schedule={self.name} is for structure={self.only_for}, not "
                f"{plan.structure}; choose schedule=truncate")

    def milestones(self, size: float) -> list[tuple[float, float]]:
        """(when, size) of each cut, by default one at `options.end`; when is a share of the epochs before the averaged
        ones."""
        return [(self.options.end, size)]

    def state_dict(self) -> dict[str, int]:
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.done = state["done"]

    def on_train_batch_start(self, trainer: Trainer, module: Any, *_: Any) -> None:
        """Cut before a step: a checkpoint after a step holds what the step left, and going on cuts the same way."""
        progress = module.seconds / module.total_seconds
        due = sum(when <= progress / self.span for when, _ in self.cuts)
        if due <= self.done:
            return
        self.done = due
        self.cut(module, trainer.optimizers[0], self.cuts[due - 1][1])
        _wrap_again(trainer)
        if trainer.is_global_zero:
            left = sum(parameter.numel() for parameter in module.model.parameters())
            print(f"{self.plan.structure}: {left / 1e6:.3g} M parameters from {100 * progress:.0f} % of the training "
                  "on", flush=True)

    def cut(self, module: Any, optimizer: torch.optim.Optimizer, size: float) -> None:
        """Bring the model to `size` of the dense parameters; new ones start without moments (`surgery.regroup`)."""
        model = module.model
        weights = selected(model, self.plan)
        before: dict[str, Tensor | Structure] = {**weights, **modules.structured(model)}
        paying = {path: given for path, given in self.allocate(weights, size).items() if given is not None}
        fitted = structures.fit_all(self.plan.structure, {path: weights[path] for path in paying}, paying,
                                    self.plan.seed)
        for path, weight in weights.items():
            new = fitted.get(path)
            if new is None or new.num_parameters() >= weight.numel():  # factors of full rank have more than that
                new = structures.fit("dense", weight)
            place_if_smaller(model, path, before[path], new)
        surgery.regroup(optimizer, module.parameter_groups())


def without(plan: Plan, globs: tuple[str, ...]) -> Plan:
    """A plan that leaves these layers alone as well."""
    return replace(plan, exclude=(*plan.exclude, *globs))


def selected(model: nn.Module, plan: Plan) -> dict[str, Tensor]:
    """The weight at every path that the plan selects; of a structure the dense one that it stands for.

    Errors: UserError where the plan selects no layer.
    """
    found = {path: weight for path, weight, why in modules.weights(model) if not why}
    with torch.no_grad():
        found |= {path: structure.dense() for path, structure in modules.structured(model).items()}
    chosen = {path: weight for path, weight in found.items() if plan.selects(path)}
    if not chosen:
        raise UserError(f"the plan selects no layer: include {list(plan.include)}, exclude {list(plan.exclude)}; "
                        f"the layers are {', '.join(found) or 'none'}")
    return chosen


def place_if_smaller(model: nn.Module, path: str, old: Tensor | Structure, new: Structure) -> None:
    """Let `new` stand at a path, if it has fewer parameters than what stands there. A tensor is a dense weight."""
    if new.num_parameters() < (old.num_parameters() if isinstance(old, Structure) else old.numel()):
        surgery.place(model, path, new)


def say_dense(structure: str, paths: list[str]) -> None:
    """Print which of the layers that were to be compressed are no smaller in the structure, and so stay dense."""
    if paths:
        print(f"{structure}: dense, as it would not make them smaller: {', '.join(paths)}", flush=True)


def _wrap_again(trainer: Trainer) -> None:
    """Lightning's ddp counts on the parameters that it saw first: show it the new ones, and let go of its hooks."""
    if isinstance(trainer.strategy, DDPStrategy):
        trainer.strategy.model = trainer.lightning_module
        gc.collect()
        trainer.strategy.configure_ddp()
