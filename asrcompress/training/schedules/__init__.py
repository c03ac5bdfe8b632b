"""Compression during training: a callback that makes layers small before, or while, they are trained.

scratch      every layer is a random member of the structure from the start. With structure svd this is a bottleneck
             (Sainath et al., ICASSP 2013), with semi_orthogonal TDNN-F (Povey et al., Interspeech 2018).
trace_norm   layers start as two factors of full rank, whose decay is a penalty on the nuclear norm of their product,
             |W|_* = min (|L|_F^2 + |R|_F^2) / 2 over W = L R; then they are cut to size (Kliegl et al., 1710.09026).
truncate     now and then each layer is replaced by the nearest one of fewer numbers, down to the size.

Every schedule ends before the epochs whose weights are averaged, so that those have the same shapes.
"""

import gc
import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from asrcompress.compression import Plan, budget, modules, structures
from asrcompress.compression.structures import Structure
from asrcompress.compression.structures.low_rank.svd import Svd
from asrcompress.errors import UserError
from asrcompress.training import surgery


def milestones(options: Mapping[str, Any], size: float) -> list[tuple[float, float]]:
    """(when, size) of each cut; when is a share of the epochs before the averaged ones, sizes fall geometrically."""
    if options["name"] == "trace_norm":
        return [(options["end"], size)]
    start, end, steps = options["start"], options["end"], options["steps"]
    return [(start + (end - start) * k / max(1, steps - 1), size ** ((k + 1) / steps)) for k in range(steps)]


def callbacks(config: Mapping[str, Any], training: Mapping[str, Any]) -> list["During"]:
    """What a config as `conf/train.yaml` composes it asks for: nothing, or one callback."""
    structure = config["structure"]["name"]
    if config["schedule"]["name"] != "none":
        return [During(Plan.from_config(config), config["schedule"], training)]
    if structure != "dense":
        raise UserError(f"structure={structure} has no effect on a training without schedule=...; choose scratch, "
                        "trace_norm or truncate, or compress a trained model by `asrcompress compress`")
    return []


class During(Callback):
    """Compresses as `plan` and one of `conf/schedule/*.yaml` (`options`) say; `training` is conf/training's."""

    def __init__(self, plan: Plan, options: Mapping[str, Any], training: Mapping[str, Any]) -> None:
        self.plan = replace(plan, exclude=(*plan.exclude, *options.get("keep", ())))
        self.options, self.total, self.done = options, 0, 0
        self.family = structures.family(plan.structure)
        self.cuts: list[tuple[float, float]] = []
        _check(plan, options, training)
        if options["name"] != "scratch":
            self.cuts = milestones(options, structures.checked_size(plan.size) or 0)
        self.span = 1 - training["average"]["count"] / training["epochs"]

    def begin(self, model: Any) -> None:
        """Make a dense model what it is before its first step; to be called before the optimizer is made."""
        if modules.structured(model):
            raise UserError("compression during training starts from a dense model, and this one is compressed already")
        self.total = sum(parameter.numel() for parameter in model.parameters())
        weights = selected(model, self.plan)
        shares = self._shares(weights, self.plan.size)  # a size that cannot be reached is an error now, not hours later
        if self.options["name"] == "scratch":
            self._start(model, weights, shares)
        elif self.options["name"] == "trace_norm":
            for path, weight in weights.items():
                surgery.place(model, path, Svd.fit(weight, rank=weight.numel(), unfolding=self._unfolding()))
        modules.describe(model)

    def _shares(self, weights: Mapping[str, Tensor], size: float | None) -> budget.Allocation:
        """What each layer gets. Nothing is known of a random weight, so from scratch global_greedy is uniform."""
        plan, name, options = self.plan, self.plan.budget, dict(self.plan.budget_options)
        if name == "global_greedy" and self.options["name"] == "scratch":
            name, options = "uniform", {}
        weights = {path: weight.detach() for path, weight in weights.items()}
        return budget.allocate(name, budget.Request(self.family, weights, plan.options, size, self.total), options)

    def _start(self, model: nn.Module, weights: Mapping[str, Tensor], shares: budget.Allocation) -> None:
        """Random structures; options that are only for fitting a trained weight are left out."""
        known = inspect.signature(self.family.init).parameters
        paying = {path: {key: value for key, value in share.items() if key in known}
                  for path, share in shares.items() if share is not None}
        shapes = {path: weights[path].shape for path in paying}
        for path, new in structures.init_all(self.plan.structure, shapes, paying, self.plan.seed).items():
            _place_if_smaller(model, path, weights[path], new)

    def _unfolding(self) -> str:
        way = self.plan.options.get("unfolding", "best")
        return "input" if way == "best" else way  # at full rank both are exact

    def state_dict(self) -> dict[str, int]:
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.done = state["done"]

    def on_train_batch_start(self, trainer: Trainer, module: Any, *_: Any) -> None:
        """Cut before a step: a checkpoint after a step holds what the step left, and going on cuts the same way."""
        progress = module.seconds / module.total_seconds / self.span if self.cuts else 0
        due = sum(when <= progress for when, _ in self.cuts)
        if due > self.done:
            self.done = due
            self.cut(module, trainer.optimizers[0], self.cuts[due - 1][1])
            _wrap_again(trainer)
            if trainer.is_global_zero:
                left = sum(parameter.numel() for parameter in module.model.parameters())
                print(f"{self.plan.structure}: {left / 1e6:.3g} M parameters from {100 * progress * self.span:.0f} % "
                      "of the training on", flush=True)

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: Trainer, module: Any, optimizer: torch.optim.Optimizer) -> None:
        """Until the cut the factors decay as AdamW's weights do, apart from what the gradient says."""
        if self.options["name"] == "trace_norm" and not self.done:
            keep = 1 - optimizer.param_groups[0]["lr"] * self.options["penalty"]
            for structure in modules.structured(module.model).values():
                for factor in structure.parameters():
                    factor.mul_(keep)

    def cut(self, module: Any, optimizer: torch.optim.Optimizer, size: float) -> None:
        """Bring the model to `size` of the dense numbers; new parameters start without moments (`surgery.regroup`)."""
        model = module.model
        weights = selected(model, self.plan)
        paying = {path: share for path, share in self._shares(weights, size).items() if share is not None}
        before: dict[str, Tensor | Structure] = {**weights, **modules.structured(model)}
        fitted = structures.fit_all(self.plan.structure, {path: weights[path] for path in paying}, paying,
                                    self.plan.seed)
        for path, weight in weights.items():
            new = fitted.get(path)
            if new is None or new.num_parameters() >= weight.numel():  # factors of full rank would have more numbers than that
                new = structures.fit("dense", weight)
            _place_if_smaller(model, path, before[path], new)
        modules.describe(model)
        surgery.regroup(optimizer, module.parameter_groups())


def selected(model: nn.Module, plan: Plan) -> dict[str, Tensor]:
    """The weight at every path that the plan selects; of a structure the dense one that it stands for."""
    found = {path: weight for path, weight, why in modules.weights(model) if not why}
    with torch.no_grad():
        found |= {path: structure.dense() for path, structure in modules.structured(model).items()}
    chosen = {path: weight for path, weight in found.items() if plan.selects(path)}
    if not chosen:
        raise UserError(f"the plan selects no layer: include {list(plan.include)}, exclude {list(plan.exclude)}; "
                        f"the layers are {', '.join(found) or 'none'}")
    return chosen


def _place_if_smaller(model: nn.Module, path: str, old: Tensor | Structure, new: Structure) -> None:
    if new.num_parameters() < (old.num_parameters() if isinstance(old, Structure) else old.numel()):
        surgery.place(model, path, new)


def _wrap_again(trainer: Trainer) -> None:
    """Lightning's ddp counts on the parameters that it saw first: show it the new ones, and let go of its hooks."""
    if isinstance(trainer.strategy, DDPStrategy):
        trainer.strategy.model = trainer.lightning_module
        gc.collect()
        trainer.strategy.configure_ddp()


def _check(plan: Plan, options: Mapping[str, Any], training: Mapping[str, Any]) -> None:
    name, average = options["name"], training["average"]
    if plan.structure == "dense":
        raise UserError(f"schedule={name} needs a structure to compress with: add structure=svd, or another one")
    if name == "scratch":
        return
    if name == "trace_norm" and plan.structure != "svd":
        raise UserError(f"schedule=trace_norm is for structure=svd, not {plan.structure}; choose schedule=truncate")
    if plan.size is None:
        raise UserError(f"schedule={name} needs budget.size, the fraction of the dense model to end with")
    start = options.get("start", options["end"])
    if not 0 <= start <= options["end"] <= 1 or options.get("steps", 1) < 1 or options.get("penalty", 0) < 0:
        raise UserError(f"schedule={name}: 0 <= start <= end <= 1, steps is at least 1, penalty at least 0")
    if average["how"] != "last" or average["count"] >= training["epochs"]:
        raise UserError(f"schedule={name} changes shapes, so it needs training.average.how=last and more "
                        f"training.epochs than the {average['count']} whose weights are averaged")
