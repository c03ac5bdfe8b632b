"""What the graphs of all families are made of: affine layers with any structure, masks, the mean of an utterance."""

from typing import Any

from onnx import TensorProto
from torch import nn

from asrcompress.compression.modules import StructuredConv1d, StructuredLinear
from asrcompress.runtimes.onnx_graph import chains
from asrcompress.runtimes.onnx_graph.builder import Graph, Window
from asrcompress.runtimes.onnx_graph.options import Options


def affine(g: Graph, name: str, module: Any, x: str, options: Options) -> str:
    """A linear map or convolution with its bias, dense or structured: (N, T, in) -> (N, T', out)."""
    if isinstance(module, nn.Identity):
        return x
    window = Window()
    if hasattr(module, "stride"):
        window = Window(module.stride[0], int(module.padding[0]), module.dilation[0])
    if isinstance(module, StructuredConv1d | StructuredLinear):
        y = chains.multiply(g, name, module.structure, x, window, options.keep_small)
    else:
        y = g.product(f"{name}.weight", x, module.weight, window)
    if module.bias is None:
        return g.op("Identity", y, name=name)
    return g.op("Add", y, g.bias(f"{name}.bias", module.bias), name=name)


def frames(g: Graph, x: str) -> str:
    """The number of frames T of (N, T, ...), a scalar."""
    return g.op("Squeeze", g.op("Shape", x, start=1, end=2))


def mask(g: Graph, lens: str, x: str) -> str:
    """(N, T, 1): 1 inside each utterance, 0 past its end; T as in x (N, T, ...)."""
    inside = g.op("Less", g.op("Range", g.integer(0), frames(g, x), g.integer(1)), g.op("Unsqueeze", lens, g.ints(1)))
    return g.op("Unsqueeze", g.op("Cast", inside, to=TensorProto.FLOAT), g.ints(2))


def masked(g: Graph, x: str, inside: str) -> str:
    """x (N, T, C), 0 past the end of each utterance; x itself where there is no mask."""
    return g.op("Mul", x, inside) if inside else x


def shortened(g: Graph, lens: str, stride: int) -> str:
    """The frames (N,) that a stride leaves of each utterance."""
    return g.op("Div", g.op("Add", lens, g.integer(stride - 1)), g.integer(stride))


def normalized(g: Graph, inside: str) -> str:
    """The graph's input x less its mean over the frames of each utterance."""
    if not inside:
        return g.op("Sub", "x", g.op("ReduceMean", "x", g.ints(1)))
    total = g.op("ReduceSum", g.op("Mul", "x", inside), g.ints(1))
    count = g.op("Cast", g.op("Unsqueeze", "x_lens", g.ints(1, 2)), to=TensorProto.FLOAT)
    return g.op("Sub", "x", g.op("Div", total, count))
