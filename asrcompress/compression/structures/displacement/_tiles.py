"""A weight as a grid of equal tiles that transform their input in the same way, so that tiles share the transforms.

A tile is (height, width); the last row and column of tiles are padded and cropped. A kernel of `taps` is a matrix
whose input is the frames under its taps side by side, hence taps x columns of tiles, but every frame is transformed
once for all taps.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional

from asrcompress.compression.structures.base import Structure


def tile(weight: Tensor, height: int, width: int) -> Tensor:
    """(out, in) or (out, in, taps) -> (rows, taps x columns, height, width), with zeros outside the weight."""
    full = weight if weight.dim() == 3 else weight.unsqueeze(2)
    full = functional.pad(full, (0, 0, 0, -full.shape[1] % width, 0, -full.shape[0] % height))
    grid = full.unflatten(1, (-1, width)).unflatten(0, (-1, height))  # (rows, height, columns, width, taps)
    return grid.permute(0, 4, 2, 1, 3).flatten(1, 2)


def untile(tiles: Tensor, shape: Sequence[int]) -> Tensor:
    """The weight of this shape that `tile` cut into these tiles."""
    out, inputs, taps = (*shape, 1)[:3]
    grid = tiles.unflatten(1, (taps, -1)).permute(0, 3, 2, 4, 1)
    return grid.reshape(-1, grid.shape[2] * grid.shape[3], taps)[:out, :inputs].reshape(tuple(shape))


def float32_inside(x: Tensor) -> AbstractContextManager[None]:
    """What keeps torch.autocast off the FFT, which has no half precision on a CPU."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def rfft_macs(n: int) -> int:
    """Multiply-adds of a real transform of n points, or a complex one of n / 2: half of 2.5 n log2 n operations."""
    return math.ceil(1.25 * n * math.log2(n))


class Tiled(Structure):
    """Base of the structures whose tiles share transforms: a family writes `product` and says when it is `fast`."""

    def __init__(self, shape: Sequence[int], height: int, width: int) -> None:
        super().__init__(shape)
        out, inputs, self.taps = (*self.shape, 1)[:3]
        self.height, self.width = height, width
        self.rows, self.columns = -(-out // height), -(-inputs // width)

    def fast(self, frames: int) -> bool:
        """Whether `product` takes less time than the dense weight for so many frames of output."""
        raise NotImplementedError

    def product(self, x: Tensor, stride: int, dilation: int) -> Tensor:
        """(N, T, in) -> (N, T', out), the input padded already."""
        raise NotImplementedError

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        frames = math.prod(x.shape[:-1])
        if not self.fast(frames):
            return super().forward(x, bias)
        y = self.product(x.reshape(1, frames, x.shape[-1]), 1, 1).reshape(*x.shape[:-1], self.shape[0])
        return y if bias is None else y + bias

    def conv1d(self, x: Tensor, stride: int = 1, padding: int = 0, dilation: int = 1,
               bias: Tensor | None = None) -> Tensor:
        steps = (x.shape[2] + 2 * padding - (self.taps - 1) * dilation - 1) // stride + 1
        if steps < 1 or not self.fast(x.shape[0] * steps):  # too short an input is an error, and torch's own to say
            return super().conv1d(x, stride, padding, dilation, bias)
        y = self.product(functional.pad(x.transpose(1, 2), (0, 0, padding, padding)), stride, dilation)
        return (y if bias is None else y + bias).transpose(1, 2)

    def columns_of(self, x: Tensor) -> Tensor:
        """(N, T, in) -> (N, T, columns, width)."""
        missing = self.columns * self.width - x.shape[2]
        x = functional.pad(x, (0, missing)) if missing else x
        return x.reshape(*x.shape[:2], self.columns, self.width)

    def under_taps(self, x: Tensor, time: int, stride: int, dilation: int) -> Tensor:
        """Each step of output beside its frames: at dimension `time` T -> T', after it columns -> taps x columns."""
        if self.taps == 1:
            return x if stride == 1 else x[(slice(None),) * time + (slice(None, None, stride),)]
        span = x.shape[time] - (self.taps - 1) * dilation
        shifted = (x.narrow(time, tap * dilation, span) for tap in range(self.taps))
        return torch.cat([s[(slice(None),) * time + (slice(None, None, stride),)] for s in shifted], time + 1)
