"""A tied weight as a graph: what its group shares is stored once, and the weight is made again at load.

Nothing in it depends on the input, so onnxruntime folds it to one weight when it creates a session.
"""

from torch import Tensor

from asrcompress.compression.structures.sharing.tied import Tied
from asrcompress.runtimes.onnx_graph.builder import Graph


def matrix(g: Graph, name: str, layer: Tied, scale: Tensor | None = None) -> str:
    """The weight as (taps x in, out), its rows scaled."""
    out, inputs, taps = (*layer.shape, 1)[:3]
    weight = g.shared(f"{name}.shared", layer.pool, layer.pool.weight.reshape(out, inputs, taps).permute(2, 1, 0)
                      .reshape(-1, out))
    if layer.left is not None and layer.right is not None:
        right = layer.right.view(layer.rank, inputs, taps).permute(2, 1, 0).reshape(-1, layer.rank)
        own = g.op("MatMul", g.weight(f"{name}.right", right), g.weight(f"{name}.left", layer.left.T))
        weight = g.op("Add", weight, own)
    if layer.diagonal is not None:
        diagonal = g.op("Mul", g.op("EyeLike", weight), g.weight(f"{name}.diagonal", layer.diagonal))
        weight = g.op("Add", weight, diagonal)
    return weight if scale is None else g.op("Mul", weight, g.weight(f"{name}.scale", scale))
