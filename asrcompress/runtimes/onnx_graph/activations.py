"""Activation functions as nodes of a graph: one function for every family of models."""

from torch import nn

from asrcompress.errors import UserError
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
        return g.op("Sqrt", g.op("Add", squares, g.constant(1e-8)), name=name)
    raise UserError(f"the hand-made graph has no nodes for the activation {type(activation).__name__}; export with "
                    "inputs, which traces the model")
