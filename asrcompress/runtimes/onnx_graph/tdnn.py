"""tdnn: the graph of a TDNN."""

from typing import Any

from asrcompress.models.tdnn import TDNN
from asrcompress.runtimes.onnx_graph import activations
from asrcompress.runtimes.onnx_graph.builder import Graph
from asrcompress.runtimes.onnx_graph.layers import affine, mask, masked, normalized, shortened
from asrcompress.runtimes.onnx_graph.options import Options


def network(g: Graph, model: TDNN, options: Options) -> tuple[str, str]:
    """What the output layer multiplies (N, T', C), and the frames of each utterance (N,)."""
    lens, inside = "x_lens", "" if options.batch1 else mask(g, "x_lens", "x")
    y = normalized(g, inside)
    for i, stride in enumerate(model.strides):
        y = layer(g, f"layers.{i}", model.layers[i], masked(g, y, inside), options)
        if stride > 1:
            lens = shortened(g, lens, stride)
            inside = inside and mask(g, lens, y)
    return affine(g, "prefinal", model.prefinal, y, options), lens


def layer(g: Graph, name: str, module: Any, x: str, options: Options) -> str:
    """asrcompress.models.tdnn.Layer."""
    y = affine(g, f"{name}.linear", module.linear, x, options)
    y = affine(g, f"{name}.conv", module.conv, y, options)
    if not module.bypass:
        return activations.emit(g, module.activation, y, name)
    y = activations.emit(g, module.activation, y)
    return g.op("Add", y, g.op("Mul", x, g.constant(module.bypass)), name=name)
