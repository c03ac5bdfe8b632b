"""conformer: the graph of a Conformer.

Padding is kept out where the torch model keeps it out: of the inputs of the front end, of the keys of the attention,
and of the inputs of the depthwise convolution. The angles of rotary positions are worked out from the number of frames,
so the file has no table and no longest utterance of its own. LayerNorms whose gains and biases were folded have none.
"""

from typing import Any, NamedTuple

import torch
from onnx import TensorProto
from torch import nn

from asrcompress.models._front import Conv2d
from asrcompress.models.conformer import MASKED, Conformer
from asrcompress.runtimes.onnx_graph import activations, tdnn
from asrcompress.runtimes.onnx_graph.builder import Graph
from asrcompress.runtimes.onnx_graph.layers import affine, frames, mask, masked, normalized, shortened
from asrcompress.runtimes.onnx_graph.options import Options


class Shared(NamedTuple):
    """What all blocks use. Nothing masks one utterance a call, and models without positions have no rotation."""

    inside: str  # (N, T, 1): 1 inside each utterance
    bias: str  # (N, 1, 1, T): what is added to the scores of each key
    rotation: tuple[str, str] | None  # cosines and signed sines (T, 1, dim / heads)


def network(g: Graph, model: Conformer, options: Options) -> tuple[str, str]:
    """What the output layer multiplies (N, T', dim), and the frames of each utterance (N,)."""
    inside = "" if options.batch1 else mask(g, "x_lens", "x")
    y = normalized(g, inside)
    if isinstance(model.front, Conv2d):
        y, lens, inside = _conv2d(g, model.front, y, inside, options)
    else:
        y, lens, inside = tdnn.layers(g, "front", model.front, (2, 2), y, inside, options)
    rotation = None
    if model.options.positions == "rope":
        rotation = angles(g, y, model.options.dim // model.options.heads)
    shared = Shared(inside, inside and key_bias(g, inside), rotation)
    for i, block in enumerate(model.blocks):
        y = _block(g, f"blocks.{i}", block, y, shared, options)
    return y, lens


def _conv2d(g: Graph, front: Any, x: str, inside: str, options: Options) -> tuple[str, str, str]:
    """`tdnn.layers` of images of time and mel (N, C, T, F), whose convolutions are never quantized."""
    lens, x = "x_lens", g.op("Unsqueeze", x, g.ints(1))
    for i, (layer, stride) in enumerate(zip(front.layers, front.strides, strict=True)):
        x = masked(g, x, inside and g.op("Unsqueeze", inside, g.ints(1)))
        name = f"front.layers.{i}"
        y = g.op("Conv", x, g.weight(f"{name}.conv.weight", layer.conv.weight),
                 g.bias(f"{name}.conv.bias", layer.conv.bias), name=f"{name}.conv", strides=[stride] * 2, pads=[1] * 4)
        x = activations.emit(g, layer.activation, y, name)
        if stride > 1:
            lens = shortened(g, lens, stride)
            inside = inside and mask(g, lens, g.op("Transpose", x, perm=[0, 2, 1, 3]))
    x = g.op("Reshape", g.op("Transpose", x, perm=[0, 2, 3, 1]), g.ints(0, 0, -1))
    return affine(g, "front.out", front.out, x, options), lens, inside


def key_bias(g: Graph, inside: str) -> str:
    """(N, T, 1) -> (N, 1, 1, T): 0 inside each utterance, -1e4 past its end."""
    past = g.op("Sub", g.constant(1.0), g.op("Unsqueeze", g.op("Transpose", inside, perm=[0, 2, 1]), g.ints(1)))
    return g.op("Mul", past, g.constant(MASKED))


def angles(g: Graph, x: str, size: int) -> tuple[str, str]:
    """Cosines (cos, cos) and sines (-sin, sin) of the angles t * 10000^(-2 i / size), (T, 1, size) each.

    With them a head (one, two) is turned as (one, two) cos + (two, one) sin.
    """
    times = g.op("Cast", g.op("Range", g.integer(0), frames(g, x), g.integer(1)), to=TensorProto.FLOAT)
    rates = (10000.0 ** (torch.arange(0, size, 2) / -size)).repeat(2)
    angle = g.op("Mul", g.op("Unsqueeze", times, g.ints(1, 2)), g.constant(rates.numpy()))
    signs = torch.ones(size).index_fill_(0, torch.arange(size // 2), -1)
    return g.op("Cos", angle), g.op("Mul", g.op("Sin", angle), g.constant(signs.numpy()))


def _block(g: Graph, name: str, block: Any, x: str, shared: Shared, options: Options) -> str:
    x = g.op("Add", x, _half(g, _feed_forward(g, f"{name}.ff1", block.ff1, x, options)))
    x = g.op("Add", x, _attention(g, f"{name}.attention", block.attention, x, shared, options))
    x = g.op("Add", x, _convolution(g, f"{name}.convolution", block.convolution, x, shared, options))
    x = g.op("Add", x, _half(g, _feed_forward(g, f"{name}.ff2", block.ff2, x, options)))
    return _layer_norm(g, f"{name}.norm", block.norm, x)


def _half(g: Graph, x: str) -> str:
    return g.op("Mul", x, g.constant(0.5))


def _layer_norm(g: Graph, name: str, norm: nn.LayerNorm, x: str) -> str:
    gain = torch.ones(norm.normalized_shape) if norm.weight is None else norm.weight
    vectors = [g.bias(f"{name}.weight", gain)]
    if norm.bias is not None:
        vectors.append(g.bias(f"{name}.bias", norm.bias))
    return g.op("LayerNormalization", x, *vectors, name=name, axis=-1, epsilon=norm.eps)


def _feed_forward(g: Graph, name: str, module: Any, x: str, options: Options) -> str:
    y = affine(g, f"{name}.up", module.up, _layer_norm(g, f"{name}.norm", module.norm, x), options)
    y = activations.emit(g, module.activation, y, f"{name}.activation")
    return affine(g, f"{name}.down", module.down, y, options)


def _attention(g: Graph, name: str, module: Any, x: str, shared: Shared, options: Options) -> str:
    u, size = _layer_norm(g, f"{name}.norm", module.norm, x), module.query.out_features // module.heads
    q, k, v = (g.op("Reshape", affine(g, f"{name}.{one}", getattr(module, one), u, options),
                    g.ints(0, 0, module.heads, size)) for one in ("query", "key", "value"))
    if shared.rotation:
        q, k = _rotated(g, q, shared.rotation), _rotated(g, k, shared.rotation)
    q, k, v = (g.op("Transpose", one, perm=perm) for one, perm in ((q, [0, 2, 1, 3]), (k, [0, 2, 3, 1]),
                                                                  (v, [0, 2, 1, 3])))
    scores = g.op("Mul", g.op("MatMul", q, k), g.constant(size ** -0.5))
    if shared.bias:
        scores = g.op("Add", scores, shared.bias)
    y = g.op("MatMul", g.op("Softmax", scores, axis=-1), v)
    y = g.op("Reshape", g.op("Transpose", y, perm=[0, 2, 1, 3]), g.ints(0, 0, -1))
    return affine(g, f"{name}.out", module.out, y, options)


def _rotated(g: Graph, x: str, rotation: tuple[str, str]) -> str:
    """(N, T, heads, size), each head turned by its angles."""
    one, two = g.ops("Split", 2, x, axis=-1, num_outputs=2)
    other = g.op("Concat", two, one, axis=-1)
    return g.op("Add", g.op("Mul", x, rotation[0]), g.op("Mul", other, rotation[1]))


def _convolution(g: Graph, name: str, module: Any, x: str, shared: Shared, options: Options) -> str:
    u = _layer_norm(g, f"{name}.norm", module.norm, x)
    y = affine(g, f"{name}.pointwise_in", module.pointwise_in, u, options)
    one, gate = g.ops("Split", 2, y, axis=-1, num_outputs=2)
    y = masked(g, g.op("Mul", one, g.op("Sigmoid", gate)), shared.inside)
    y = _depthwise(g, f"{name}.depthwise", module.depthwise, y)
    y = activations.emit(g, module.activation, y, f"{name}.activation")
    return affine(g, f"{name}.pointwise_out", module.pointwise_out, y, options)


def _depthwise(g: Graph, name: str, module: Any, x: str) -> str:
    """A channel sees itself alone, so this is no product of matrices, and never quantized: (N, T, C) -> (N, T, C)."""
    y = g.op("Conv", g.op("Transpose", x, perm=[0, 2, 1]), g.weight(f"{name}.weight", module.weight),
             g.bias(f"{name}.bias", module.bias), name=name, group=module.groups, pads=[module.padding[0]] * 2)
    return g.op("Transpose", y, perm=[0, 2, 1])
