"""Integers with a scale per row or per group of a row: what int8 and int4 share.

symmetric: w = s q with q in [-(2^(b-1) - 1), 2^(b-1) - 1]; affine: w = s (q - z) with q in [0, 2^b - 1] and z an
integer. Jacob et al., CVPR 2018. In training the gradients pass straight through the rounding and the scales are
learned: Esser et al., "Learned step size quantization", ICLR 2020.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asrcompress.compression.quantization.base import Encoded, Quantizer, normalized, require_shapes
from asrcompress.options import require

FLOAT, HALF = torch.finfo(torch.float32), torch.finfo(torch.float16)
FAINT = 1e-36  # the gradient of a smaller scale is not finite
SHRINK = tuple(1 - 0.05 * step for step in range(13))  # of the range, tried for the least squared error


def groups(shape: Sequence[int], group: int) -> tuple[int, int, int]:
    """(rows, groups in a row, values in a group) of a tensor; a vector is one row; group 0 is the whole row."""
    rows = shape[0] if len(shape) > 1 else 1
    width = max(1, math.prod(shape) // max(1, rows))
    size = min(group or width, width)
    return rows, -(-width // size), size


def spread(scale: Tensor, shape: Sequence[int], size: int) -> Tensor:
    """A value per group, (rows, groups), to each of its members: the shape of the tensor."""
    rows, width = scale.shape[0], max(1, math.prod(shape) // max(1, scale.shape[0]))
    return scale.repeat_interleave(size, 1)[:, :width].reshape(rows, width).reshape(tuple(shape))


def straight_through_round(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()


class Integer(Quantizer):
    """A tensor of `bits`-bit integers; see the module."""

    @dataclass(frozen=True)
    class Options:
        """`group` values of a row share a scale, 0: the whole row; `affine` adds a zero point to each scale."""

        group: int = 0
        affine: bool = False

        def __post_init__(self) -> None:
            require(self.group >= 0, f"quantization int8 or int4: group is {self.group}; it is a number of values, or "
                                     "0 for whole rows")

    bits = 8
    options: Options
    base: Tensor
    zero: Tensor | None

    def __init__(self, shape: Sequence[int], options: Options) -> None:
        super().__init__(shape, options)
        rows, count, self.size = groups(self.shape, options.group)
        self.affine = options.affine
        self.weight = nn.Parameter(torch.zeros(self.shape, dtype=torch.float32))
        self.scale = nn.Parameter(torch.ones(rows, count, dtype=torch.float32))
        self.register_buffer("zero", torch.zeros(rows, count, dtype=torch.int64) if self.affine else None)
        self.register_buffer("base", torch.ones((), dtype=torch.float32))  # what scales are stored relative to
        self.low = 0 if self.affine else 1 - 2 ** (self.bits - 1)
        self.high = 2**self.bits - 1 if self.affine else 2 ** (self.bits - 1) - 1

    @classmethod
    @torch.no_grad()
    def fit(cls, tensor: Tensor, options: Options, seed: int = 0) -> "Integer":
        """For each group the range, the full one or a smaller one, that gives the least squared error."""
        one = cls(tensor.shape, options)
        one.weight.copy_(tensor)
        unit, power = normalized(tensor.cpu())
        rows, count, size = groups(tensor.shape, options.group)
        width = tensor.numel() // max(1, rows)
        padded = nn.functional.pad(unit.reshape(rows, width), (0, count * size - width), mode="constant")
        blocks = padded.reshape(rows, count, size)
        low, high = blocks.amin(2).clamp(max=0), blocks.amax(2).clamp(min=0)
        best = torch.full((rows, count), float("inf"), dtype=torch.float32)
        for shrink in SHRINK:
            scale, zero = one._grid(low * shrink, high * shrink)
            error = (one._round(blocks, scale[..., None], zero[..., None]) - blocks).square().sum(2)
            better = error < best
            best = torch.where(better, error, best)
            one.scale.copy_(torch.where(better, scale, one.scale))
            if one.zero is not None:
                one.zero.copy_(torch.where(better, zero, one.zero))
        one.scale.mul_(power * (high > low))
        one.base.fill_(float(one.scale.max()) or 1.0)
        one.scale.masked_fill_(one.scale == 0, float(one.base))  # of groups of zeros
        return one

    def _grid(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point for a range that holds 0."""
        reach = high - low if self.affine else torch.maximum(-low, high)
        scale = reach / (self.high if not self.affine else self.high - self.low)
        scale = torch.where(scale > 0, scale, 1)
        zero = (-low / scale).round() if self.affine else torch.zeros_like(scale)
        return scale, zero.long()

    def _round(self, x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        return ((x / scale + zero).round().clamp(self.low, self.high) - zero) * scale

    def _scale(self) -> Tensor:
        """(rows, groups): the scales as the file holds them, gradients straight through and damped as in LSQ."""
        damping = 1 / math.sqrt(max(1, self.size) * self.high)
        scale = self.scale * damping + (self.scale * (1 - damping)).detach()
        stored = self._ratio().float() * self.base
        trained = self.scale.detach().abs() > FAINT
        return stored + torch.where(trained, scale - scale.detach(), 0)

    @torch.no_grad()
    def _ratio(self) -> Tensor:
        """(rows, groups): scales over `base`, in half precision unless that is too narrow for one of them."""
        ratio = (self.scale / self.base).clamp(-FLOAT.max, FLOAT.max)
        size = ratio.abs()
        narrow = ((size < HALF.tiny) & (size > 0) | (size > HALF.max)).any()
        return torch.where(narrow, ratio, ratio.half().float())

    def _codes(self, scale: Tensor) -> Tensor:
        """The integers, still float and straight through, of the tensor's shape."""
        q = self.weight / spread(torch.where(scale == 0, 1, scale), self.shape, self.size)
        zero = 0 if self.zero is None else spread(self.zero, self.shape, self.size)
        near = (q + zero).clamp(self.low - 1, self.high + 1)  # finite
        return straight_through_round(near).clamp(self.low, self.high) - zero

    def tensor(self) -> Tensor:
        scale = self._scale()
        codes = self._codes(scale)
        exact = codes.detach().round()
        return (codes + (exact - codes).detach()) * spread(scale, self.shape, self.size)

    @torch.no_grad()
    def parts(self) -> Encoded:
        codes = self._codes(self._scale()).round().long()
        integers = {"codes": codes.cpu().numpy()}
        if self.zero is not None:  # from 0 to 2^bits - 1, which packs in `bits`; the zero points come off at decoding
            integers["codes"] = (codes + spread(self.zero, self.shape, self.size)).cpu().numpy()
            integers["zero"] = self.zero.cpu().numpy()
        ratio = self._ratio().cpu()
        kind = torch.float16 if torch.equal(ratio, ratio.half().float()) else torch.float32
        return Encoded(integers, {"scale": ratio.to(kind).numpy(),
                                  "base": self.base.reshape(1).cpu().numpy()}, {"size": self.size})

    @staticmethod
    def decode(encoded: Encoded, shape: Sequence[int]) -> NDArray[np.float32]:
        size = encoded.spec["size"]
        if type(size) is not int or size < 1:
            raise ValueError(f"a group of {size!r} values")
        each_group = dict.fromkeys({"scale", "zero"} & {*encoded.floats, *encoded.integers}, groups(shape, size)[:2])
        require_shapes(encoded, base=(1,), codes=shape, **each_group)
        scale = encoded.floats["scale"].astype(np.float32) * encoded.floats["base"]
        codes = encoded.integers["codes"].reshape(scale.shape[0], -1)
        each = np.minimum(np.arange(codes.shape[1]) // size, scale.shape[1] - 1)
        if "zero" in encoded.integers:
            codes = codes - encoded.integers["zero"][:, each]
        return (codes.astype(np.float32) * scale[:, each]).reshape(shape)
