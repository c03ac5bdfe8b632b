"""scaling: rows and columns of layers' weights, multiplied in place whatever makes the weight. Folding and smoothing
move scales between layers with it."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from asrcompress.compression import quantization, structures
from asrcompress.compression.modules import StructuredLinear
from asrcompress.errors import UserError


@torch.no_grad()
def scale_rows(layer: Any, scale: Tensor) -> None:
    """Multiply the rows of a layer's weight by `scale` (out,). Errors: UserError for one that is computed."""
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


def why_fixed(layer: nn.Module) -> str:
    """Why `scale_columns` cannot be used on a layer; "" where it can."""
    if isinstance(layer, StructuredLinear):
        if quantization.attached(layer.structure):
            return f"the factors of its {layer.structure.name} are quantized"
        able = hasattr(layer.structure, "scale_columns")
        return "" if able else f"the columns of a {layer.structure.name} cannot be scaled"
    if not isinstance(layer, nn.Linear):
        return f"it is a {type(layer).__name__}, no Linear"
    if isinstance(layer.weight, nn.Parameter):
        return ""
    return "its weight is quantized" if quantization.attached(layer) else "its weight is computed"


@torch.no_grad()
def scale_columns(layer: Any, scale: Tensor) -> None:
    """Multiply the columns of a Linear's weight by `scale` (in,); only where `why_fixed` says nothing."""
    if isinstance(layer, StructuredLinear):
        structure: Any = layer.structure
        structure.scale_columns(scale)
    else:
        layer.weight.mul_(scale)
