"""plain: a compressed model as modules that any exporter knows."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from asrcompress.compression.modules import StructuredConv1d, StructuredLinear, detach_class
from asrcompress.compression.parametrization import copy_model
from asrcompress.compression.structures import Scaled, Structure, pooled
from asrcompress.compression.structures.sharing.tied import Tied
from asrcompress.runtimes.onnx_graph.chains import CHAINS, FRAMES


@torch.no_grad()
def plain(model: nn.Module) -> nn.Module:
    """A float32 copy in eval mode with the same outputs, without parametrizations; of structures only chains are left.

    A layer of structure tied becomes a `Rebuilt`. What a parametrization makes (a quantizer, a structure, weight_norm)
    becomes a parameter of that value.
    """
    copied = copy_model(model).eval().float()
    for module in list(copied.modules()):
        if parametrize.is_parametrized(module):
            detach_class(module)
            for name in list(module.parametrizations):  # type: ignore[arg-type,union-attr]
                _materialize(module, name)
    for path, module in list(copied.named_modules()):
        if isinstance(module, StructuredLinear | StructuredConv1d) and not is_chain(module.structure, _stride(module)):
            parent, _, name = path.rpartition(".")
            if not path:
                return _dense(module)
            setattr(copied.get_submodule(parent), name, _dense(module))
    return copied


class Rebuilt(nn.Module):
    """A layer that makes its weight in the graph, where what it shares with other layers is stored once.

    A runtime folds that into a weight when it loads the file: nothing in it depends on the input.
    """

    def __init__(self, layer: StructuredLinear | StructuredConv1d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        if isinstance(layer, StructuredLinear):
            return functional.linear(x, layer.structure.dense(), layer.bias)
        return functional.conv1d(x, layer.structure.dense(), layer.bias, layer.stride, layer.padding, layer.dilation)


def is_chain(structure: Structure, stride: int = 1) -> bool:
    """Whether a structure is a chain of small products that is less work than a product with its weight."""
    inner = structure.inner if isinstance(structure, Scaled) else structure
    return isinstance(inner, tuple(CHAINS)) and inner.macs(FRAMES, stride) < FRAMES * math.prod(inner.shape)


def _materialize(module: Any, name: str) -> None:
    """Let the parameter of this name be the value that its parametrizations make."""
    made = module.parametrizations[name]
    made.original, made.is_tensor = nn.Parameter(getattr(module, name).detach().clone()), True
    parametrize.remove_parametrizations(module, name, leave_parametrized=False)


def _stride(module: StructuredLinear | StructuredConv1d) -> int:
    return module.stride[0] if isinstance(module, StructuredConv1d) else 1


def _dense(module: StructuredLinear | StructuredConv1d) -> nn.Module:
    """The layer with its weight rebuilt, here or in the graph."""
    new: nn.Module
    if isinstance(pooled(module.structure), Tied):
        return Rebuilt(module)
    if isinstance(module, StructuredConv1d):
        new = nn.Conv1d(module.in_channels, module.out_channels, module.kernel_size[0], module.stride[0],
                        module.padding[0], module.dilation[0], bias=module.bias is not None)
    else:
        new = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
    new.weight = nn.Parameter(module.structure.dense().detach().clone())
    new.bias = module.bias
    return new.eval()
