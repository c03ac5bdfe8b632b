"""Weights of 8 and 4 bits and codebooks in the file, and the products that multiply them as they are.

int8: the input of a product becomes uint8, per tensor; its frames are spliced as bytes, and MatMulInteger multiplies
them by int8 weights that have a scale per output channel. onnxruntime fuses the steps and runs them on the integer
instructions of the CPU, as fast as QLinearConv, which needs static ranges. (ConvInteger, a dynamic Conv, is slower than
float32.) `dynamic` takes the range of each input from
the utterance itself, `static` from training speech.

x86 without VNNI adds products of neighbours in 16 bits: 255 x 127 twice is too much for them, and they saturate. Inputs
behind an activation, which are mostly near the zero point, hardly ever do; those behind a LayerNorm, centred, do in
1 or 2 of 100 sums. `bits=7` halves the weights' integers, so that no sum can: 2 x 255 x 63 < 2^15.

int4: onnxruntime's MatMulNBits, a scale per 32 numbers of a row, about as fast as float32. codebook: k-means centroids
of the rows, each in units of its standard deviation; Gather makes the float32 weight when a session is created.

Rows that lie on a grid of few integers already, as int8 and int4 of a packed file do, keep that grid.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from torch import Tensor

from asrcompress.compression import quantization
from asrcompress.compression.quantization._integer import Integer
from asrcompress.compression.quantization.codebook import Codebook
from asrcompress.runtimes.onnx_graph.builder import POINT, Graph, Window

BLOCK = 32  # numbers of a row that share a scale in 4 bits
Ranges = Mapping[str, tuple[float, float]]  # of the inputs of products, by the names of these
Array = NDArray[Any]


class Reduced(Integer):
    """Integers of half the range of int8."""

    name, bits = "reduced", 7


def steps(rows: Array, bits: int) -> Array:
    """The step (rows, 1) of the symmetric `bits`-bit grid for each row: its own where it lies on one, otherwise the
    one of least squared error."""
    top = 2 ** (bits - 1) - 1
    largest = np.abs(rows).max(1, keepdims=True)
    tensor = torch.from_numpy(rows)
    fitted = Reduced.fit(tensor, Reduced.Options()) if bits == 7 else quantization.fit(f"int{bits}", tensor, group=0)
    found = fitted.encode().floats
    best = found["scale"].astype(np.float32) * found["base"]
    few = rows[:, :: max(1, rows.shape[1] // 32)]
    for count in range(top, 0, -1):  # the largest number of a row is `count` steps
        step = np.maximum(largest / np.float32(count), np.float32(1e-30))
        for index in np.flatnonzero(_off_grid(few, step) < 1e-3):
            if _off_grid(rows[index: index + 1], step[index: index + 1])[0] < 1e-3:
                best[index] = step[index]
    return np.maximum(best, np.float32(1e-30))


def _off_grid(rows: Array, step: Array) -> Array:
    q = rows / step
    return np.abs(q - np.round(q)).max(1)


def integers(rows: Array, bits: int) -> tuple[Array, Array]:
    """(rows, width) -> codes int8 of the same shape and steps (rows,) float32: a row is about codes x step."""
    rows = np.ascontiguousarray(rows, np.float32)
    step, top = steps(rows, bits), 2 ** (bits - 1) - 1
    return np.clip(np.round(rows / step), -top, top).astype(np.int8), step[:, 0]


class Quantized(Graph):
    """A graph whose products `quantize` writes, except those that `keep_float` names: these are float16 in the file."""

    def __init__(self, keep_float: tuple[str, ...] = ()) -> None:
        super().__init__(half=True)
        self.keep_float = keep_float

    def product(self, name: str, x: str, weight: Tensor, window: Window = POINT) -> str:
        if kept(name, self.keep_float):
            return super().product(name, x, weight, window)
        self.inputs[name] = x
        kernel = weight if weight.dim() == 3 else weight.unsqueeze(2)
        rows = kernel.permute(0, 2, 1).flatten(1).detach().float().numpy()
        return self.quantize(name, x, np.ascontiguousarray(rows), kernel.shape[2], window)

    def quantize(self, name: str, x: str, rows: Array, taps: int, window: Window) -> str:
        """(N, T, in) -> (N, T', out), for rows (out, taps x in)."""
        raise NotImplementedError

    def stored(self, name: str, array: Array) -> str:
        """An array of the file, under its name."""
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name


class Int8(Quantized):
    """`ranges` are those of static quantization; without them each utterance has its own. `bits` are 8, or 7."""

    def __init__(self, keep_float: tuple[str, ...] = (), ranges: Ranges | None = None, bits: int = 8) -> None:
        super().__init__(keep_float)
        self.ranges, self.bits = ranges, bits

    def quantize(self, name: str, x: str, rows: Array, taps: int, window: Window) -> str:
        codes, step = integers(rows, self.bits)
        return self.multiply(name, x, self.stored(f"{name}.int8", codes.T), self.stored(f"{name}.step", step), taps,
                             window)

    def rebuilt(self, name: str, x: str, matrix: str, weight: Tensor, window: Window = POINT) -> str:
        if kept(name, self.keep_float):
            return super().rebuilt(name, x, matrix, weight, window)
        self.inputs[name] = x
        step = self.stored(f"{name}.step", steps(weight.flatten(1).detach().float().numpy(), 8)[:, 0])
        codes = self.op("QuantizeLinear", matrix, step, self.constant(np.zeros(len(weight)), np.int8), axis=1)
        return self.multiply(name, x, codes, step, weight.shape[2] if weight.dim() == 3 else 1, window)

    def multiply(self, name: str, x: str, codes: str, step: str, taps: int, window: Window) -> str:
        """x in uint8, by ranges of its own frames or the calibrated ones, times codes in int32, times both steps."""
        if self.ranges is None:
            x, scale, zero = self.ops("DynamicQuantizeLinear", 3, x)
        else:
            low, high = self.ranges[name]
            width = max(high - low, 1e-6) / 255
            scale, zero = self.constant(width), self.constant(round(-low / width), np.uint8)
            x = self.op("QuantizeLinear", x, scale, zero)
        y = self.op("MatMulInteger", self.spliced(x, taps, window, zero), codes, zero)
        return self.op("Mul", self.op("Cast", y, to=TensorProto.FLOAT), self.op("Mul", scale, step))


class Int4(Quantized):
    """4 bits a number, and 16 for the step of each block."""

    def quantize(self, name: str, x: str, rows: Array, taps: int, window: Window) -> str:
        out, width = rows.shape
        blocks = -(-width // BLOCK)
        codes, step = integers(np.pad(rows, ((0, 0), (0, blocks * BLOCK - width))).reshape(-1, BLOCK), 4)
        nibbles = (codes + 8).astype(np.uint8).reshape(out, blocks, BLOCK)
        packed = nibbles[..., ::2] | nibbles[..., 1::2] << 4
        stored, scale = self.stored(f"{name}.int4", packed), self.weight(f"{name}.step", torch.from_numpy(step))
        return self.op("MatMulNBits", self.spliced(x, taps, window), stored, scale, domain="com.microsoft", K=width,
                       N=out, bits=4, block_size=BLOCK)


class CodebookGraph(Quantized):
    """Up to 256 centroids a tensor, a byte for each number; up to 16, half a byte."""

    def __init__(self, keep_float: tuple[str, ...] = (), entries: int = 256) -> None:
        super().__init__(keep_float)
        self.entries = entries

    def quantize(self, name: str, x: str, rows: Array, taps: int, window: Window) -> str:
        spread = np.maximum(rows.std(1), np.float32(1e-30))
        one = quantization.fit("codebook", torch.from_numpy(rows / spread[:, None]), entries=self.entries)
        assert isinstance(one, Codebook)
        codes = one.codes.numpy().astype(np.uint8).T
        indices = self.indices(f"{name}.codes", codes)
        weight = self.op("Gather", self.stored(f"{name}.codebook", one.codebook.detach().numpy()), indices)
        weight = self.op("Mul", weight, self.stored(f"{name}.spread", spread))
        return self.op("MatMul", self.spliced(x, taps, window), weight)

    def indices(self, name: str, codes: Array) -> str:
        """int32 indices of the shape of the codes; two codes of 4 bits lie in a byte, half a matrix apart."""
        if self.entries > 16:
            return self.op("Cast", self.stored(name, codes), to=TensorProto.INT32)
        half = -(-len(codes) // 2)
        upper = np.zeros_like(codes[:half])
        upper[: len(codes) - half] = codes[half:]
        packed = self.stored(name, codes[:half] | upper << 4)
        four = self.constant(4, np.uint8)
        low = self.op("BitwiseAnd", packed, self.constant(15, np.uint8))
        both = self.op("Concat", low, self.op("BitShift", packed, four, direction="RIGHT"), axis=0)
        both = self.op("Cast", both, to=TensorProto.INT32)
        if len(codes) % 2 == 0:
            return both
        return self.op("Slice", both, self.ints(0), self.ints(len(codes)), self.ints(0))


def kept(name: str, globs: tuple[str, ...]) -> bool:
    """Whether a glob matches a product's name, such as layers.2.conv.left, or that of the layer it belongs to."""
    return any(fnmatchcase(name, glob) or fnmatchcase(name, f"{glob}.*") for glob in globs)
