"""Activation functions as nodes of a graph: one function for every family of models."""

from torch import nn

from asrcompress.errors import UserError
from asrcompress.models._lma import LMA, ContinuousLMA
from asrcompress.models.tdnn import PNorm
from asrcompress.runtimes.onnx_graph.builder import Graph


def emit(g: Graph, activation: nn.Module, x: str, name: str | None = None) -> str:
    """(N, T, C) -> (N, T, C), of p-norms (N, T, C / size). `name` is that of the value, if it needs one.

    SiLU is x times its sigmoid, which onnxruntime fuses to one kernel. Errors: UserError for a function without nodes.
    """
    if isinstance(activation, nn.ReLU):
        return g.op("Relu", x, name=name)
    if isinstance(activation, nn.SiLU):
        return g.op("Mul", x, g.op("Sigmoid", x), name=name)
    if isinstance(activation, PNorm):
        groups = g.op("Reshape", x, g.ints(0, 0, -1, activation.size))
        squares = g.op("ReduceSumSquare", groups, g.ints(3), keepdims=0)
        norm = g.op("Sqrt", g.op("Add", squares, g.constant(1e-8)))
        return g.op("Sub", norm, g.constant(activation.mean), name=name)
    if isinstance(activation, LMA):
        y = _clips(g, activation, x) if isinstance(activation, ContinuousLMA) else _lines(g, activation, x)
        return g.op("Identity", y, name=name) if name else y
    raise UserError(f"the hand-made graph has no nodes for the activation {type(activation).__name__}; export with "
                    "inputs, which traces the model")


def _lines(g: Graph, activation: LMA, x: str) -> str:
    """The line of the first segment, replaced by the next one above each border; a Gather takes three times as long."""
    borders, slopes, offsets = (part.tolist() for part in activation.pieces())
    lines = [g.op("Add", g.op("Mul", x, g.constant(slope)), g.constant(offset))
             for slope, offset in zip(slopes, offsets, strict=True)]
    y = lines[0]
    for border, line in zip(borders, lines[1:], strict=True):
        y = g.op("Where", g.op("GreaterOrEqual", x, g.constant(border)), line, y)
    return y


def _clips(g: Graph, activation: ContinuousLMA, x: str) -> str:
    """c' + sum_j slope_j clip(x, b_j, b_{j+1})."""
    constant, clips = activation.clips()
    y = g.constant(constant)
    for slope, *ends in clips:
        clip = g.op("Clip", x, *("" if end is None else g.constant(end) for end in ends))
        y = g.op("Add", y, g.op("Mul", clip, g.constant(slope)))
    return y
