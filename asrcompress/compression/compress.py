"""compress: a model and a plan go in; a smaller model and a report per layer come out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from asrcompress.compression import activations, budget, checks, modules, quantization, record, structures
from asrcompress.compression.parametrization import copy_model
from asrcompress.compression.plan import Plan
from asrcompress.compression.structures import Structure
from asrcompress.errors import UserError


@dataclass(frozen=True)
class LayerRecord:
    """What happened to one weight: `before` and `after` count parameters, `note` says why it stayed dense.

    `error` is |W - W'| / |W| in the Frobenius norm, of the weight with which the compressed model computes, so of its
    structure and `quantization` together. `output_error` is sqrt(E|(W - W') x|^2 / E|W x|^2) on the calibration data,
    where the layer's inputs x were seen. A byte budget also says the bytes of what is stored of the weight, and its
    `damage`, predicted: nats a frame (see `compression.damage`).
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
    quantization: str = "float32"
    bytes: int | None = None
    damage: float | None = None


def run(model: nn.Module, plan: Plan, moments: Mapping[str, Tensor]) -> tuple[nn.Module, list[LayerRecord]]:
    """`api.compress` for a plan, and the moments (n, n) of layers' inputs that `calibration.collect` saw."""
    structures.check_trained(plan.structure)
    checks.can_be_compressed(model)
    small = activations.remove(quantization.materialize(copy_model(model)))  # their ranges were those of another model
    found = {path: (weight.detach().clone(), why) for path, weight, why in modules.weights(small)}
    chosen = _chosen(found, plan)
    fitted = _fit(small, plan, chosen, moments)
    kept = {path: _why_not(fitted[path], weight) if path in fitted else "dense pays better"
            for path, weight in chosen.items()}
    notes = {path: why or kept.get(path, "not selected") for path, (_, why) in found.items()}
    if plan.structure == "dense":
        notes = {path: why for path, (_, why) in found.items()}
        fitted = {}
    _place(small, {path: layer for path, layer in fitted.items() if not notes[path]})
    rows = [_row(path, found[path][0], fitted.get(path), note) for path, note in notes.items()]
    checks.layers(small)
    if plan.quantization != "float32":
        small = _quantized(small, plan)
    record.set_coder(small, plan.coder, plan.coder_options, plan.vectors)
    return small, [_with_errors(row, small, found[row.path][0], moments.get(row.path)) for row in rows]


def _chosen(found: Mapping[str, tuple[Tensor, str]], plan: Plan) -> dict[str, Tensor]:
    """The weights that the plan's structure is for."""
    chosen = {path: weight for path, (weight, why) in found.items() if not why and plan.selects(path)}
    if not chosen and plan.structure != "dense":
        raise UserError(f"the plan selects no layer: include {list(plan.include)}, exclude {list(plan.exclude)}; "
                        f"the layers are {', '.join(found) or 'none'}")
    for path, weight in chosen.items():
        with structures.error_context(path):
            structures.check_finite(weight)
    return chosen


def _fit(model: nn.Module, plan: Plan, chosen: Mapping[str, Tensor],
         moments: Mapping[str, Tensor]) -> dict[str, Structure]:
    """The structures of the chosen weights, by path, as large as the budget lets each be."""
    if plan.structure == "dense":
        return {}
    total = sum(parameter.numel() for parameter in model.parameters())
    family, options = structures.family(plan.structure), structures.make_options(plan.structure, plan.options)
    request = budget.Request(family, chosen, options, plan.size, total, moments)
    allocation = budget.allocate(plan.budget, request, plan.budget_options)
    paying = {path: allotment for path, allotment in allocation.items() if allotment is not None}
    return structures.fit_all(plan.structure, {path: chosen[path] for path in paying}, paying, plan.seed, moments)


def _why_not(layer: Structure, weight: Tensor) -> str:
    """Why the dense weight is better than its structure; "" where it is not."""
    many = layer.num_parameters()
    return f"{many} parameters are not fewer" if many >= weight.numel() else ""


def _place(model: nn.Module, fitted: Mapping[str, Structure]) -> None:
    """Put the structures into the model. A pool is frozen only where every layer that uses it is."""
    frozen = {path for path, weight, _ in modules.weights(model) if not weight.requires_grad}
    for path, layer in fitted.items():
        modules.replace_layer(model, path, layer)
    for path, layer in fitted.items():
        if path not in frozen and (one := structures.pooled(layer)) is not None:
            one.tied_pool().requires_grad_(True)


def _quantized(small: nn.Module, plan: Plan) -> nn.Module:
    before = dict(quantization.tensors(small))
    include, exclude = plan.quantization_include, plan.quantization_exclude
    apart = _embeddings(small, plan)
    own = apart if plan.embeddings != "float32" else {}  # of embeddings, those that are quantized
    if own and len(own) == len(quantization.selected(small, include, exclude)):
        quantized = small  # nothing is left for the other quantization
    else:
        quantized = quantization.apply(small, plan.quantization, include, (*exclude, *apart), plan.seed,
                                       **plan.quantization_options)
    if own:
        for path, tensor in own.items():
            quantization.attach(quantized, path, quantization.fit(str(plan.embeddings), tensor, plan.seed))
    checks.quantizers(quantized, before)
    return quantized


def _embeddings(small: nn.Module, plan: Plan) -> dict[str, Tensor]:
    """The selected weights of embeddings that get a quantization of their own, by path."""
    if plan.embeddings is None:
        return {}
    selected = quantization.selected(small, plan.quantization_include, plan.quantization_exclude)
    return {path: tensor.detach() for path, tensor in selected.items()
            if isinstance(small.get_submodule(path.rpartition(".")[0]), nn.Embedding)}


def _row(path: str, weight: Tensor, layer: Structure | None, note: str) -> LayerRecord:
    """What is known before quantization, which changes what parameters there are."""
    shape, count = tuple(weight.shape), weight.numel()
    if note or layer is None:
        return LayerRecord(path, shape, "dense", count, count, note=note)
    return LayerRecord(path, shape, layer.name, count, layer.num_parameters(), getattr(layer, "rank", None))


@torch.no_grad()
def _with_errors(row: LayerRecord, small: nn.Module, weight: Tensor, moments: Tensor | None) -> LayerRecord:
    """The row with the errors of the weight that the finished model has, and with what quantizes it."""
    made = modules.weight_at(small, row.path)
    difference = made.to(weight.dtype) - weight
    error = structures.relative_error(made.to(weight.dtype), weight)
    seen = None
    if moments is not None:
        seen = math.sqrt(structures.output_energy(difference, moments) /
                         max(structures.output_energy(weight, moments), 1e-30))
    return replace(row, error=error, output_error=seen, quantization=_quantization_of(small, row.path))


def _quantization_of(small: Any, path: str) -> str:
    """The name of the quantization of a weight, or of what its structure makes it from."""
    for name, one in quantization.attached(small).items():
        stem = name.replace("parametrizations.", "")
        if stem == path or stem.startswith(path + "."):
            return one.name
    return "float32"
