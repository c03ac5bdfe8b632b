"""record: what was done to a model, read off its modules, so that a file can say it and a new dense model follow it."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from asrcompress.compression import activations, folding, modules, quantization, state, structures
from asrcompress.compression.structures import Structure
from asrcompress.errors import UserError

CHOICE = "_stored_with"  # the one attribute: which coder stores the model, which no module says
DEFAULT = {"name": "raw", "options": {}, "vectors": "float32"}
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}
ROOM = 4  # structures may have this many times as many parameters as their weights have values, and 2^16 more


def record_config(model: nn.Module) -> dict[str, Any]:
    """Plain JSON from which `apply_config` makes the same modules in a new dense model.

    {"layers": {path: {"structure", **spec, "tied_to"?}}, "quantization": {path: {"quantization", **spec}},
    "activations": {path: grid}, "coder": {"name", "options", "vectors"}}, and where the model has them "ties"
    ({parameter: the first name that it has}), "norms" (paths of LayerNorms that kept gain and bias when it was folded),
    "dtype" (that of all parameters, if it is not float32) and "constants" ({name: dtype} of floating-point
    `modules.constants` of another dtype).
    """
    record: dict[str, Any] = {"layers": layers(model), "quantization": quantization.specs(model),
                              "activations": activations.entries(model), "coder": coder(model)}
    if ties := state.ties(model):
        record["ties"] = ties
    if norms := folding.kept_norms(model):
        record["norms"] = norms
    if (dtype := state.dtype_of(model)) in DTYPES.values():
        record["dtype"] = _name(dtype)
    if constants := {name: _name(one.dtype) for name, one in modules.constants(model).items()
                     if one.is_floating_point() and _name(one.dtype) != record.get("dtype", "float32")}:
        record["constants"] = constants
    return record


def _name(dtype: torch.dtype | None) -> str:
    return str(dtype).removeprefix("torch.")


def apply_config(model: nn.Module, record: Mapping[str, Any]) -> nn.Module:
    """Give a dense model the modules that `record_config` said, in place; their values are still to be loaded.

    Errors: UserError for a layer that the model lacks and for an entry that nothing can be built from.
    """
    try:
        folding.restore_norms(model, record.get("norms") or ())
    except AttributeError as error:
        raise UserError(f"the model has not the LayerNorms that its file says it has ({error})") from None
    _set_dtypes(model, record.get("dtype", "float32"), record.get("constants") or {})
    try:
        state.set_ties(model, record.get("ties") or {})
    except AttributeError as error:
        raise UserError(f"the model has not the parameters that its file says are tied ({error})") from None
    for path, structure in _fitting(model, record.get("layers") or {}).items():
        modules.replace_layer(model, path, structure)
    quantization.apply_config(model, record.get("quantization") or {})
    activations.apply_config(model, record.get("activations") or {})
    if "coder" in record:
        set_coder(model, **record["coder"])
    return model


def _set_dtypes(model: nn.Module, dtype: str, others: Mapping[str, str]) -> None:
    """Let all be of this dtype, but for these `modules.constants`, which keep the precision that they are made in."""
    known, constants = {"float32": torch.float32, **DTYPES}, modules.constants(model)
    for one in (dtype, *others.values()):
        if one not in known:
            raise UserError(f"a model's dtype is one of {', '.join(known)}, not {one!r}")
    if dtype != "float32":  # complex ones stay: as a real dtype they would lose half of what they are
        model._apply(lambda one: one.to(known[dtype]) if one.is_floating_point() else one)
    for name, other in others.items():
        if name not in constants:
            raise UserError(f"the model has no buffer '{name}', which its file says is {other}")
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, constants[name].to(known[other]))


def _fitting(model: nn.Module, entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Structure]:
    """`build_layers`, once each is known to be of the shape of the weight that it is for: a table of hashes, say, takes
    memory when it is built. Errors: UserError, also for a layer that is used past what stands in its place."""
    fixed, weights = modules.elsewhere(model), 0
    for path, entry in entries.items():
        if id(modules.dense_at(model, path, entry["structure"], entry.get("shape"))) in fixed:
            raise UserError(f"layer '{path}' is also in a list or an object of the model's own, which would go on with "
                            "the dense one; compress the model again")
        weights += math.prod(entry["shape"])
    made = build_layers(entries)
    stored = {id(one): one.numel() for layer in made.values() for one in layer.parameters()}
    if sum(stored.values()) > ROOM * weights + 2**16:
        raise UserError(f"its structures have {sum(stored.values())} parameters, for weights of {weights} values")
    return made


def layers(model: nn.Module) -> dict[str, dict[str, Any]]:
    """{path: {"structure": name, **spec}} of every structure; "tied_to" is the first layer of its pool."""
    specs: dict[str, dict[str, Any]] = {}
    firsts: dict[int, str] = {}
    for path, layer in modules.structured(model).items():
        specs[path] = {"structure": layer.name, **layer.spec()}
        one = structures.pooled(layer)
        if one is not None and (first := firsts.setdefault(id(one.tied_pool()), path)) != path:
            specs[path]["tied_to"] = first
    return specs


def build_layers(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Structure]:
    """The structures of `layers`, by path, pools tied as they were; their values are still to be loaded.

    Errors: UserError for an unknown structure, an impossible spec, and a pool that no layer before it has.
    """
    made: dict[str, Structure] = {}
    for path, entry in entries.items():
        spec = {key: value for key, value in entry.items() if key not in ("structure", "tied_to")}
        layer = structures.build(entry["structure"], spec)
        if "tied_to" in entry:
            ours, first = (structures.pooled(one) if one is not None else None
                           for one in (layer, made.get(entry["tied_to"])))
            if ours is None or first is None:
                raise UserError(f"layer '{path}' is tied to '{entry['tied_to']}', which has no pool or comes later")
            ours.tie_pool(first.tied_pool())
        made[path] = layer
    return made


def coder(model: nn.Module) -> dict[str, Any]:
    """Which coder stores the model, its options, and how vectors are stored: {"name", "options", "vectors"}."""
    return dict(getattr(model, CHOICE, DEFAULT))


def set_coder(model: nn.Module, name: str = "raw", options: Mapping[str, Any] | None = None,
              vectors: str = "float32") -> None:
    """Choose the coder that stores a model, in place."""
    setattr(model, CHOICE, {"name": name, "options": dict(options or {}), "vectors": vectors})
