"""Structures on a device: chains of small products where that is less work, otherwise the rebuilt weight.

A family that is not in `CHAINS` is rebuilt at export: hashes and codebooks have no faster product, and no runtime for
devices has FFT kernels that beat a matrix product at these sizes. `hashed` and `tied` can also be rebuilt there.
"""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from asrcompress.compression.structures import Scaled, Structure
from asrcompress.compression.structures.hashing.hashed import Hashed
from asrcompress.compression.structures.low_rank import _tensor_train as train
from asrcompress.compression.structures.low_rank.cp import Cp
from asrcompress.compression.structures.low_rank.grouped import Grouped
from asrcompress.compression.structures.low_rank.svd import Svd
from asrcompress.compression.structures.low_rank.tensor_train import TensorTrain
from asrcompress.compression.structures.low_rank.tucker import Tucker
from asrcompress.compression.structures.sharing.tied import Tied
from asrcompress.runtimes.onnx_graph import hashing, sharing
from asrcompress.runtimes.onnx_graph.builder import POINT, Graph, Window

FRAMES = 256  # for what depends on how many there are: 10 s after subsampling


def multiply(g: Graph, name: str, layer: Structure, x: str, window: Window = POINT, keep_small: bool = False) -> str:
    """(N, T, in) -> (N, T', out), without bias."""
    scale = layer.scale if isinstance(layer, Scaled) else None
    inner = layer.inner if isinstance(layer, Scaled) else layer
    if keep_small and isinstance(inner, Hashed | Tied):
        made = (hashing.matrix(g, name, inner, scale) if isinstance(inner, Hashed) else
                sharing.matrix(g, name, inner, scale))
        return g.rebuilt(f"{name}.weight", x, made, layer.dense(), window)
    chain = next((chain for family, chain in CHAINS.items() if isinstance(inner, family)), None)
    if chain is None or inner.macs(FRAMES, window.stride) >= FRAMES * math.prod(inner.shape):
        return g.product(f"{name}.weight", x, layer.dense(), window)
    y = chain(g, name, inner, x, window)
    return y if scale is None else g.op("Mul", y, g.weight(f"{name}.scale", scale))


def svd(g: Graph, name: str, layer: Svd, x: str, window: Window) -> str:
    """The right factor, then the left; the window belongs to the one that has the taps."""
    first, second = (window, POINT) if layer.unfolding == "input" else (POINT, window)
    return g.product(f"{name}.left", g.product(f"{name}.right", x, layer.right, first), layer.left, second)


def grouped(g: Graph, name: str, layer: Grouped, x: str, window: Window) -> str:
    """A product for each group: one with all of them at once would move its input twice and has no int8 kernel."""
    parts = [f"{name}.group{i}" for i in range(layer.groups)]
    size = layer.shape[1] // layer.groups
    inputs = [g.op("Slice", x, g.ints(i * size), g.ints((i + 1) * size), g.ints(2)) for i in range(layer.groups)]
    inner = [g.product(f"{part}.right", one, kernel, window)
             for part, one, kernel in zip(parts, inputs, layer.right, strict=True)]
    return g.product(f"{name}.left", g.op("Concat", *inner, axis=2) if len(inner) > 1 else inner[0], layer.left)


def tucker(g: Graph, name: str, layer: Tucker, x: str, window: Window) -> str:
    """The right factor, the core, which has the taps, the left factor."""
    if layer.context_frames > 1:
        middle = g.product(f"{name}.right", _side_by_side(g, x, layer.context_frames), layer.right)
        middle = g.op("Reshape", middle, g.ints(0, 0, -1))
        return g.product(f"{name}.left", g.product(f"{name}.core", middle, layer.core.mT.flatten(1)), layer.left)
    middle = g.product(f"{name}.right", x, layer.right)
    if len(layer.shape) == 2:
        return g.product(f"{name}.left", middle, layer.left @ layer.core[..., 0])
    return g.product(f"{name}.left", g.product(f"{name}.core", middle, layer.core, window), layer.left)


def _side_by_side(g: Graph, x: str, frames: int) -> str:
    """(N, T, frames x in) -> (N, T, frames, in)."""
    return g.op("Reshape", x, g.ints(0, 0, frames, -1))


def cp(g: Graph, name: str, layer: Cp, x: str, window: Window) -> str:
    """The right factor, a sum over the taps of each component, the left factor."""
    if layer.taps is not None and layer.context_frames > 1:
        middle = g.product(f"{name}.right", _side_by_side(g, x, layer.context_frames), layer.right)
        middle = g.op("Mul", middle, g.weight(f"{name}.taps", layer.taps.T))
        return g.product(f"{name}.left", g.op("ReduceSum", middle, g.ints(2), keepdims=0), layer.left)
    middle = g.product(f"{name}.right", x, layer.right)
    if layer.taps is None:
        return g.product(f"{name}.left", middle, layer.left, window)
    seen = g.frames(middle, layer.shape[2], window)
    terms = [g.op("Mul", frame, g.weight(f"{name}.tap{i}", layer.taps[:, i])) for i, frame in enumerate(seen)]
    return g.product(f"{name}.left", g.op("Sum", *terms), layer.left)


def tensor_train(g: Graph, name: str, layer: TensorTrain, x: str, window: Window) -> str:
    """`_tensor_train.contract`, with the frames first instead of last."""
    way, (_, columns, _) = layer.order(FRAMES, window.stride), train.sides(layer.modes)
    if columns > layer.shape[1]:
        x = g.op("Pad", x, g.ints(0, 0, 0, 0, 0, columns - layer.shape[1]))
    outside, inside = (1, columns) if way == "first" else (columns, 1)
    for k in train.sequence(layer.modes, way):
        core = layer.cores[k]
        a, m, n, taps, b = core.shape
        if way == "first":
            inside //= n
            kernel = core.permute(1, 4, 0, 2, 3).reshape(m * b, a * n, taps)
        else:
            outside //= n
            kernel = core.permute(0, 1, 2, 4, 3).reshape(a * m, n * b, taps)
        x = _core(g, f"{name}.core{k}", x, kernel, outside, inside, window if k == train.tapped(layer.modes) else POINT)
        outside, inside = (outside * m, inside) if way == "first" else (outside, inside * m)
    rows = outside * inside
    return x if rows == layer.shape[0] else g.op("Slice", x, g.ints(0), g.ints(layer.shape[0]), g.ints(2))


def _core(g: Graph, name: str, x: str, kernel: Tensor, outside: int, inside: int, window: Window) -> str:
    """(N, T, outside x c_in x inside) -> (N, T', outside x c_out x inside), kernel (c_out, c_in, taps)."""
    if outside == inside == 1:
        return g.product(name, x, kernel, window)
    taps = kernel.shape[2]
    x = g.spliced(x, taps, window)
    if taps > 1 and outside > 1:
        x = g.op("Transpose", g.op("Reshape", x, g.ints(0, 0, taps, outside, -1)), perm=[0, 1, 3, 2, 4])
        x = g.op("Reshape", x, g.ints(0, 0, -1))
    matrix = kernel.permute(0, 2, 1).flatten(1)
    sides = (outside, matrix.shape[1]) if inside == 1 else (outside, matrix.shape[1], inside)
    x = g.op("Reshape", x, g.ints(0, 0, *sides))
    y = (g.op("MatMul", x, g.weight(name, matrix.T)) if inside == 1 else g.op("MatMul", g.weight(name, matrix), x))
    return g.op("Reshape", y, g.ints(0, 0, -1))


CHAINS: dict[type[Structure], Callable[[Graph, str, Any, str, Window], str]] = {
    Svd: svd, Grouped: grouped, Tucker: tucker, Cp: cp, TensorTrain: tensor_train}
