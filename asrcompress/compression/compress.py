"""compress: the one verb. A model and a plan go in; a smaller model and a report per layer come out."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asrcompress.compression import activations, budget, modules, quantization, structures
from asrcompress.compression.plan import Plan
from asrcompress.compression.structures import Structure
from asrcompress.errors import UserError


@dataclass(frozen=True)
class LayerRecord:
    """What happened to one weight. `error` is |W - W'| / |W| in the Frobenius norm; `note` says why it stayed dense.

    `output_error` is sqrt(E|(W - W') x|^2 / E|W x|^2) on the calibration data, where the layer's inputs x were seen.
    """

    path: str
    shape: tuple[int, ...]
    structure: str
    before: int
    after: int
    rank: int | None = None
    error: float = 0.0
    note: str = ""
    output_error: float | None = None


def compress(model: nn.Module, plan: Plan, calibration: Mapping[str, Tensor] | None = None,
             ) -> tuple[nn.Module, list[LayerRecord]]:
    """A compressed copy of any torch model, and one record per weight of two or more dimensions.

    The model itself is not touched. Where it has a `config` (dict), that of the copy also says under `layers` how each
    compressed layer is made, so that a model file carries it. Layers compressed before keep what they have.
    `calibration` is what `calibration.collect` saw of the layers' inputs; structures with `data_aware` need it.
    Errors: UserError where the plan selects nothing or has an unknown name; `CannotShrink` where its size is too small.
    """
    small = activations.remove(quantization.materialize(copy.deepcopy(model)))  # their ranges were those of another model
    found = {path: (weight.detach(), why) for path, weight, why in modules.weights(small)}
    chosen = {path: weight for path, (weight, why) in found.items() if not why and plan.selects(path)}
    if not chosen and plan.quantization == "float32":
        raise UserError(f"the plan selects no layer: include {list(plan.include)}, exclude {list(plan.exclude)}; "
                        f"the layers are {', '.join(found) or 'none'}")
    for path, weight in chosen.items():
        with structures.error_context(path):
            structures.check_finite(weight)
    total = sum(parameter.numel() for parameter in small.parameters())
    family, options = structures.family(plan.structure), structures.make_options(plan.structure, plan.options)
    request = budget.Request(family, chosen, options, plan.size, total, calibration or {})
    allocation = budget.allocate(plan.budget, request, plan.budget_options)
    paying = {path: allotment for path, allotment in allocation.items() if allotment is not None}
    fitted = structures.fit_all(plan.structure, {path: chosen[path] for path in paying}, paying, plan.seed, calibration)
    records = []
    for path, (weight, why) in found.items():
        layer, note = None, why or ("" if plan.selects(path) else "not selected")
        if path in chosen:
            layer, note = _if_fewer(fitted.get(path), weight)
        records.append(_record(path, weight, layer, note, (calibration or {}).get(path)))
        if layer is not None:
            modules.replace_layer(small, path, layer)
    modules.describe(small)
    return _write(small, plan), records


def _write(small: nn.Module, plan: Plan) -> nn.Module:
    """The quantization and coder of the plan."""
    if plan.quantization != "float32":
        small = quantization.apply(small, plan.quantization, plan.quantization_include, plan.quantization_exclude, plan.seed,
                             **plan.quantization_options)
    if plan.coder and isinstance(config := getattr(small, "config", None), Mapping):
        small.config = {**config, "coder": dict(plan.coder)}  # type: ignore[assignment,dict-item]
    return small


def _if_fewer(layer: Structure | None, weight: Tensor) -> tuple[Structure | None, str]:
    """The structure of one layer, or None and why dense is better."""
    if layer is None:
        return None, "dense pays better"
    if layer.num_parameters() >= weight.numel():
        return None, f"{layer.num_parameters()} numbers are not fewer"
    return layer, ""


@torch.no_grad()
def _record(path: str, weight: Tensor, layer: Structure | None, note: str, moments: Tensor | None) -> LayerRecord:
    shape, numbers = tuple(weight.shape), weight.numel()
    if layer is None:
        return LayerRecord(path, shape, "dense", numbers, numbers, note=note,
                           output_error=None if moments is None else 0.0)
    difference = layer.dense() - weight
    error = structures.relative_error(layer.dense(), weight)
    rank, seen = getattr(layer, "rank", None), None
    if moments is not None:
        seen = math.sqrt(structures.output_energy(difference, moments) /
                         max(structures.output_energy(weight, moments), 1e-30))
    return LayerRecord(path, shape, layer.name, numbers, layer.num_parameters(), rank, error, output_error=seen)
