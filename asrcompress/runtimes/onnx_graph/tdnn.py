"""tdnn: the graph of a TDNN."""

from collections.abc import Sequence
from typing import Any

from asrcompress.models.tdnn import TDNN
from asrcompress.runtimes.onnx_graph import activations
from asrcompress.runtimes.onnx_graph.builder import Graph
from asrcompress.runtimes.onnx_graph.layers import affine, mask, masked, normalized, shortened
from asrcompress.runtimes.onnx_graph.options import Options


def network(g: Graph, model: TDNN, options: Options) -> tuple[str, str]:
    """What the output layer multiplies (N, T', C), and the frames of each utterance (N,)."""
    inside = "" if options.batch1 else mask(g, "x_lens", "x")
    y, lens, _ = layers(g, "layers", model.layers, model.strides, normalized(g, inside), inside, options)
    return affine(g, "prefinal", model.prefinal, y, options), lens


def layers(g: Graph, name: str, modules: Any, strides: Sequence[int], x: str, inside: str,
           options: Options) -> tuple[str, str, str]:
    """The layers `name`.0, `name`.1, ... of the features: (N, T, C) -> (N, T', C'), the frames (N,) of each utterance,
    and which are inside (N, T', 1)."""
    lens = "x_lens"
    for i, (module, stride) in enumerate(zip(modules, strides, strict=True)):
        x = layer(g, f"{name}.{i}", module, masked(g, x, inside), options)
        if stride > 1:
            lens = shortened(g, lens, stride)
            inside = inside and mask(g, lens, x)
    return x, lens, inside


def layer(g: Graph, name: str, module: Any, x: str, options: Options) -> str:
    """asrcompress.models.tdnn.Layer."""
    y = affine(g, f"{name}.linear", module.linear, x, options)
    y = affine(g, f"{name}.conv", module.conv, y, options)
    if not module.bypass:
        return activations.emit(g, module.activation, y, name)
    y = activations.emit(g, module.activation, y)
    return g.op("Add", y, g.op("Mul", x, g.constant(module.bypass)), name=name)
