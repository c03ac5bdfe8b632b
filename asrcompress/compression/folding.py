"""folding: BatchNorm goes into the affine map before it, which then needs no statistics and no second pass."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from asrcompress.compression import quantization, state, structures
from asrcompress.compression.parametrization import copy_model
from asrcompress.errors import UserError


def fold(model: nn.Module) -> nn.Module:
    """A copy in eval mode whose BatchNorms, with their running statistics, went into the affine maps before them.

    The pairs are those of `model.batchnorm_pairs()`; a model without it is only copied. With s = g / sqrt(var + eps),
    g (W x + b - mean) / sqrt(var + eps) + h = (s W) x + s (b - mean) + h: the same output up to rounding. A `config`
    (dict) then says `folded`. Errors: UserError where the weight before a BatchNorm is computed (weight_norm).
    """
    folded = copy_model(model).eval()
    if not hasattr(folded, "batchnorm_pairs"):
        return folded
    for path, batchnorm_path in list(folded.batchnorm_pairs()):  # type: ignore[operator]
        batchnorm = folded.get_submodule(batchnorm_path)
        state.untie(folded, path)
        _fold_into(folded.get_submodule(path), batchnorm)
        parent, _, name = batchnorm_path.rpartition(".")
        setattr(folded.get_submodule(parent), name, nn.Identity())
    if isinstance(config := getattr(folded, "config", None), Mapping):
        folded.config = {**config, "folded": True}  # type: ignore[assignment,dict-item]
    return folded


@torch.no_grad()
def _fold_into(layer: Any, batchnorm: Any) -> None:
    mean, variance = batchnorm.running_mean.double(), batchnorm.running_var.double()
    scale = (variance + batchnorm.eps).rsqrt()
    shift = torch.zeros_like(mean)
    if batchnorm.affine:
        scale, shift = scale * batchnorm.weight.double(), batchnorm.bias.double()
    bias = 0 if layer.bias is None else layer.bias.double()
    layer.bias = nn.Parameter(((bias - mean) * scale + shift).to(batchnorm.running_mean.dtype))
    scale = scale.to(batchnorm.running_mean.dtype)
    owner = layer.parametrizations.weight[0] if parametrize.is_parametrized(layer, "weight") else layer
    if hasattr(owner, "structure"):
        fixed = quantization.attached(owner.structure)  # quantized factors cannot be multiplied in place
        owner.structure = (structures.Scaled if fixed else structures.scaled)(owner.structure, scale)
    elif isinstance(owner, quantization.Quantizer):
        owner.scale_rows(scale)
    elif not isinstance(layer.weight, nn.Parameter):
        raise UserError("a BatchNorm cannot be folded into a weight that is computed (weight_norm); remove that")
    else:
        layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.dim() - 1)))
