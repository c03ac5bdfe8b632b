"""folding: norms go into the affine maps beside them, which then need no statistics, gains or second pass.

A BatchNorm goes into the map before it, the gain and bias of a LayerNorm into the linear maps that alone read it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from asrcompress.compression import activations, scaling, state
from asrcompress.compression.parametrization import copy_model


def fold(model: nn.Module) -> nn.Module:
    """A copy in eval mode whose BatchNorms, and gains and biases of LayerNorms, went into the affine maps beside them.

    The pairs are those of `model.batchnorm_pairs()` and `model.layernorm_pairs()`; a model without them, and one whose
    `config` (dict) says `folded`, as it does afterwards, is only copied. With s = g / sqrt(var + eps),
    g (W x + b - mean) / sqrt(var + eps) + h = (s W) x + s (b - mean) + h; with n the normalized x of a LayerNorm,
    W (g n + h) + b = (W diag(g)) n + (W h + b): the same output up to rounding. LayerNorms of `unfoldable` stay.
    Errors: UserError where the weight before a BatchNorm is computed (weight_norm).
    """
    folded = copy_model(model).eval()
    config = getattr(folded, "config", None)
    if isinstance(config, Mapping) and config.get("folded"):
        return folded
    fixed = unfoldable(folded)
    for norm, paths in list(_pairs(folded, "layernorm_pairs")):
        readers = [_own(folded, path) for path in paths]
        if norm not in fixed:
            _fold_layernorm(folded.get_submodule(norm), readers)
    for path, batchnorm_path in list(_pairs(folded, "batchnorm_pairs")):
        _fold_batchnorm(_own(folded, path), folded.get_submodule(batchnorm_path))
        parent, _, name = batchnorm_path.rpartition(".")
        setattr(folded.get_submodule(parent), name, nn.Identity())
    if isinstance(config, Mapping):
        folded.config = {**config, "folded": True}  # type: ignore[assignment,dict-item]
    return folded


def unfoldable(model: nn.Module) -> dict[str, str]:
    """{path: why} of the LayerNorms of `model.layernorm_pairs()` that keep gain and bias in a folded model.

    Quantized weights have no columns that could be scaled, nor have most structures; and where a layer rounds its
    inputs (`activations`), these have to stay as they are.
    """
    rounded = activations.grids(model)
    found = {}
    for norm, readers in _pairs(model, "layernorm_pairs"):
        reasons = {path: "its inputs are rounded" if path in rounded else scaling.why_fixed(model.get_submodule(path))
                   for path in readers}
        if why := [f"{path}: {reason}" for path, reason in reasons.items() if reason]:
            found[norm] = why[0]
    return found


def kept_norms(model: nn.Module) -> list[str]:
    """The LayerNorms that kept gain and bias when the model was folded; none of a model that is not."""
    config = getattr(model, "config", None)
    folded = isinstance(config, Mapping) and config.get("folded")
    return [norm for norm, _ in _pairs(model, "layernorm_pairs")] if folded else []


def restore_norms(model: nn.Module, paths: Sequence[str]) -> None:
    """Give LayerNorms of a folded model gain and bias, 1 and 0, in place: those that `kept_norms` said.

    Errors: AttributeError where the model has no such LayerNorm.
    """
    for path in paths:
        norm: Any = model.get_submodule(path)
        norm.weight = nn.Parameter(torch.ones(norm.normalized_shape))
        norm.bias = nn.Parameter(torch.zeros(norm.normalized_shape))
        norm.elementwise_affine = True


def _pairs(model: nn.Module, name: str) -> Iterator[tuple[str, Any]]:
    yield from getattr(model, name, tuple)()


def _own(model: nn.Module, path: str) -> Any:
    """The layer at `path`, with parameters of its own and, as a folded model is built, a bias."""
    state.untie(model, path)
    layer: Any = model.get_submodule(path)
    if layer.bias is None:
        layer.bias = nn.Parameter(layer.weight.new_zeros(len(layer.weight)))
    return layer


@torch.no_grad()
def _fold_layernorm(norm: Any, readers: Sequence[Any]) -> None:
    for layer in readers:
        if norm.bias is not None:
            bias = layer.weight.double() @ norm.bias.double() + layer.bias.double()
            layer.bias = nn.Parameter(bias.to(norm.bias.dtype))
        scaling.scale_columns(layer, norm.weight)
    norm.weight = norm.bias = None
    norm.elementwise_affine = False


@torch.no_grad()
def _fold_batchnorm(layer: Any, batchnorm: Any) -> None:
    mean, variance = batchnorm.running_mean.double(), batchnorm.running_var.double()
    scale = (variance + batchnorm.eps).rsqrt()
    shift = torch.zeros_like(mean)
    if batchnorm.affine:
        scale, shift = scale * batchnorm.weight.double(), batchnorm.bias.double()
    bias = (layer.bias.double() - mean) * scale + shift
    layer.bias = nn.Parameter(bias.to(batchnorm.running_mean.dtype))
    scaling.scale_rows(layer, scale.to(batchnorm.running_mean.dtype))
