"""compress: the one verb. A model and a plan go in; a smaller model and a report per layer come out."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from asrcompress.compression import budget, layers, structures, values
from asrcompress.compression.plan import Plan
from asrcompress.compression.structures import Structure
from asrcompress.errors import UserError


@dataclass(frozen=True)
class LayerRecord:
    """What happened to one weight. `error` is |W - W'| / |W| in the Frobenius norm; `note` says why it stayed dense."""

    path: str
    shape: tuple[int, ...]
    structure: str
    before: int
    after: int
    rank: int | None = None
    error: float = 0.0
    note: str = ""


def compress(model: nn.Module, plan: Plan) -> tuple[nn.Module, list[LayerRecord]]:
    """A compressed copy of any torch model, and one record per weight of two or more dimensions.

    The model itself is not touched. Where it has a `config` (dict), that of the copy also says under `layers` how each
    compressed layer is made, so that a model file carries it. Layers compressed before keep what they have.
    Errors: UserError where the plan selects nothing or has an unknown name; `CannotShrink` where its size is too small.
    """
    small = copy.deepcopy(model)
    found = {path: (weight.detach(), why) for path, weight, why in layers.weights(small)}
    chosen = {path: weight for path, (weight, why) in found.items() if not why and plan.selects(path)}
    if not chosen and plan.values == "float32":
        raise UserError(f"the plan selects no layer: include {list(plan.include)}, exclude {list(plan.exclude)}; "
                        f"the layers are {', '.join(found) or 'none'}")
    for path, weight in chosen.items():
        with _at(path):
            structures.check_finite(weight)
    total = sum(parameter.numel() for parameter in small.parameters())
    family = structures.family(plan.structure)
    request = budget.Request(family, chosen, plan.options, plan.size, total)
    shares = budget.allocate(plan.budget, request, plan.budget_options)
    records = []
    for path, (weight, why) in found.items():
        layer, note = None, why or ("" if plan.selects(path) else "not selected")
        if path in chosen:
            layer, note = _fit(path, weight, plan, shares[path])
        records.append(_record(path, weight, layer, note))
        if layer is not None:
            layers.put(small, path, layer)
    layers.describe(small)
    return _write(small, plan), records


def _write(small: nn.Module, plan: Plan) -> nn.Module:
    """The values and bits of the plan."""
    if plan.values != "float32":
        small = values.apply(small, plan.values, plan.values_include, plan.values_exclude, plan.seed,
                             **plan.values_options)
    if plan.bits and isinstance(config := getattr(small, "config", None), Mapping):
        small.config = {**config, "bits": dict(plan.bits)}  # type: ignore[assignment,dict-item]
    return small


def _fit(path: str, weight: Tensor, plan: Plan, options: dict[str, Any] | None) -> tuple[Structure | None, str]:
    """The structure of one layer, or None and why dense is better."""
    if options is None:
        return None, "dense pays better"
    with _at(path):
        layer = structures.fit(plan.structure, weight, seed=plan.seed, **options)
    if layer.numbers() >= weight.numel():
        return None, f"{layer.numbers()} numbers are not fewer"
    return layer, ""


@contextmanager
def _at(path: str) -> Iterator[None]:
    """Say in a user's error which layer it is about."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"{path}: {error}") from None


def _record(path: str, weight: Tensor, layer: Structure | None, note: str) -> LayerRecord:
    shape, numbers = tuple(weight.shape), weight.numel()
    if layer is None:
        return LayerRecord(path, shape, "dense", numbers, numbers, note=note)
    with torch.no_grad():
        error = float((layer.dense() - weight).norm() / weight.norm().clamp_min(1e-30))
    return LayerRecord(path, shape, layer.name, numbers, layer.numbers(), getattr(layer, "rank", None), error)
