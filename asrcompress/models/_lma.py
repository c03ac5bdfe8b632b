"""Light multi-segment activation (LMA): a piecewise linear function, learned, whose borders follow what it is given.

Xu et al., "Light multi-segment activation for model compression", AAAI 2020 (arXiv 1907.06870). Of k segments, with the
mean mu and the deviation sigma of the inputs of a layer and step = 6 sigma / k, the first and the last without end:

    j = clamp(floor((x - mu + 3 sigma) / step), 0, k - 1);  y = slope_j x + offset_j

The continuous form has no jumps, so rounding cannot move a value over one: with b_j = mu - 3 sigma + j step,

    y = c + slope_0 x + sum_{j = 1 .. k-1} (slope_j - slope_{j-1}) relu(x - b_j)
      = c' + sum_j slope_j clip(x, b_j, b_{j+1}),  b_0 = -inf, b_k = inf
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from asrcompress.options import require

MOMENTUM = 0.99  # of mu and sigma
SAMPLES = 64  # of a segment, where its first line is fitted
Array = np.ndarray[Any, Any]


class Segments(torch.autograd.Function):
    """y = slopes[j] x + offsets[j] with j = clamp(floor((x - low) / step), 0, k - 1), for x of any shape.

    Borders (low, step: scalars) have no gradient. This takes a quarter of the time of indexing with gradients of torch:
    a line's gradients are sums over all values above its lower border, less those above its upper one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, slopes: Tensor, offsets: Tensor, low: Tensor, step: Tensor) -> Tensor:
        """x of any shape and float type; slopes and offsets (k,)."""
        flat = x.reshape(-1).to(slopes.dtype)
        index = _places(flat, low, step, len(slopes)).int().clamp_(min=0)  # of a NaN it is the least integer
        slope = slopes.index_select(0, index)
        ctx.save_for_backward(flat, slope, low, step)
        ctx.segments = len(slopes)
        return offsets.index_select(0, index).addcmul_(slope, flat).view_as(x).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, slopes and offsets."""
        flat, slope, low, step = ctx.saved_tensors
        g = gradients[0].reshape(-1).to(flat.dtype)
        gx, places = g * flat, _places(flat, low, step, ctx.segments)
        above, mask = [torch.stack((gx.sum(), g.sum()))], torch.empty_like(flat)
        for j in range(1, ctx.segments):
            torch.ge(places, j, out=mask)
            above.append(torch.stack((mask.dot(gx), mask.dot(g))))
        sums = torch.stack([*above, torch.zeros_like(above[0])])
        of_lines = (sums[:-1] - sums[1:]).unbind(1)
        return (g * slope).view_as(gradients[0]).to(gradients[0].dtype), *of_lines, None, None


def _places(flat: Tensor, low: Tensor, step: Tensor, segments: int) -> Tensor:
    """Where values lie, in steps from `low`, clamped; the integer part is the segment."""
    return (flat - low).mul_(1 / step).clamp_(0, segments - 1)


class LMA(nn.Module):
    """The form of the paper: (N, T, C) -> (N, T, C), with 2 k numbers.

    mu and sigma are those of the first batch in training, then moving averages; in eval mode they stay. `inside`
    (N, T, 1) is 1 in the frames of an utterance and 0 past its end, where nothing counts; None: every frame counts.
    With the first batch the function becomes that of `like`: a line of least squares in each segment. The grid then
    has a border at 0, from where it moves as mu does, so ReLU is met exactly. What is trained is the difference from
    that start. As with BatchNorm, processes that train together go by the statistics of the first of them.
    """

    jumps = True  # at the borders: rounding decides on the side of a value that lies there

    def __init__(self, segments: int = 8, like: str = "relu") -> None:
        super().__init__()
        self.segments, self.like = segments, like
        self.mu: Tensor
        self.sigma: Tensor
        self.shift: Tensor
        self.batches: Tensor
        self.start: Tensor
        self.register_buffer("mu", torch.zeros(()))
        self.register_buffer("sigma", torch.ones(()))
        self.register_buffer("shift", torch.zeros(()))  # of the grid from mu
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self.register_buffer("start", self._fitted(-3.0, 6 / segments))
        self.change = nn.Parameter(torch.zeros_like(self.start))
        self.begun = False  # saves the GPU the question whether `batches` is 0

    def forward(self, x: Tensor, inside: Tensor | None = None) -> Tensor:
        if self.training:
            self._observe(x.detach(), x.new_ones(*x.shape[:2], 1) if inside is None else inside)
        if torch.onnx.is_in_onnx_export():
            return self.spelled_out(x)
        _, slopes, offsets = self.pieces()
        return Segments.apply(x, slopes, offsets, *self._grid())  # type: ignore[no-untyped-call]

    def pieces(self) -> tuple[Tensor, Tensor, Tensor]:
        """The k - 1 borders between the segments, and the slopes and offsets (k,) of their lines."""
        low, step = self._grid()
        borders = low + step * torch.arange(1, self.segments, device=low.device)
        return borders, *self._lines(borders, self.start + self.change)

    def spelled_out(self, x: Tensor) -> Tensor:
        """The same function, with constants, in operations that every exporter has: one Where for each border."""
        borders, slopes, offsets = (part.tolist() for part in self.pieces())
        y = slopes[0] * x + offsets[0]
        for border, slope, offset in zip(borders, slopes[1:], offsets[1:], strict=True):
            y = torch.where(x >= border, slope * x + offset, y)
        return y

    def extra_repr(self) -> str:
        return f"{self.segments}, like={self.like}"

    def _grid(self) -> tuple[Tensor, Tensor]:
        """The lower end of the first segment, and the width of one."""
        return self.mu + self.shift - 3 * self.sigma, 6 * self.sigma / self.segments

    def _lines(self, borders: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Slopes and offsets from what is stored."""
        slopes, offsets = numbers.chunk(2)
        return slopes, offsets

    @torch.no_grad()
    def _observe(self, x: Tensor, inside: Tensor) -> None:
        """Move mu and sigma; the first batch sets them, and the start."""
        weight = inside.float() / inside.sum().clamp(min=1)
        mu = (weight * x.mean(-1, keepdim=True, dtype=torch.float32)).sum()
        power = (weight * torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32).square()).sum()
        sigma = (power / x.shape[-1] - mu.square()).clamp(min=1e-10).sqrt()
        if not self.begun and not self.batches:
            self.mu.copy_(mu)
            self.sigma.copy_(sigma)
            step = 6 * self.sigma / self.segments
            self.shift.copy_(step * (self.mu / step).round() - self.mu)
            self.start.copy_(self._fitted(*(float(value) for value in self._grid())))
        else:
            self.mu.lerp_(mu.to(self.mu), 1 - MOMENTUM)
            self.sigma.lerp_(sigma.to(self.mu), 1 - MOMENTUM)
        self.batches += 1
        self.begun = True

    def _fitted(self, low: float, step: float) -> Tensor:
        """The numbers whose lines are nearest to `like`, on a grid whose first segment begins at `low`."""
        x, y = samples(self.like, low, step, self.segments)
        from_mean = x - x.mean(1, keepdims=True)
        slopes = (from_mean * y).sum(1) / np.square(from_mean).sum(1)
        return torch.tensor([*slopes, *(y.mean(1) - slopes * x.mean(1))], dtype=torch.float32)


class ContinuousLMA(LMA):
    """The form without jumps: (N, T, C) -> (N, T, C), with k + 1 numbers, the slopes and c."""

    jumps = False

    def clips(self) -> tuple[float, list[tuple[float, float | None, float | None]]]:
        """c', and of each segment its slope and its ends (None: without end), for a sum of Clips."""
        borders, slopes, offsets = (part.tolist() for part in self.pieces())
        ends = [None, *borders, None]
        constant = offsets[0] - sum(slope * border for slope, border in zip(slopes[1:], borders, strict=True))
        return constant, list(zip(slopes, ends, ends[1:], strict=False))

    def spelled_out(self, x: Tensor) -> Tensor:
        """The same function as a sum of Clips."""
        constant, clips = self.clips()
        y = torch.full_like(x, constant)
        for slope, low, high in clips:
            y = y + slope * x.clamp(low, high)
        return y

    def _lines(self, borders: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        slopes, c = numbers[:-1], numbers[-1:]
        return slopes, torch.cat((c, c + ((slopes[:-1] - slopes[1:]) * borders).cumsum(0)))

    def _fitted(self, low: float, step: float) -> Tensor:
        x, y = (values.ravel() for values in samples(self.like, low, step, self.segments))
        borders = low + step * np.arange(1, self.segments)
        hinges = np.maximum(x[:, None] - borders, 0)
        found = np.linalg.lstsq(np.column_stack((x, hinges, np.ones_like(x))), y)[0]
        return torch.tensor([*found[:-1].cumsum(), found[-1]], dtype=torch.float32)


def samples(like: str, low: float, step: float, segments: int) -> tuple[Array, Array]:
    """Values x (segments, SAMPLES) inside each segment of a grid, and what `like` (relu or silu) is there."""
    x = low + step * (np.arange(segments)[:, None] + (np.arange(SAMPLES) + 0.5) / SAMPLES)
    return x, np.maximum(x, 0) if like == "relu" else x / (1 + np.exp(-x))


def check_segments(model: str, segments: int) -> None:
    """A UserError unless a border can lie at 0, in the middle."""
    require(segments >= 2 and segments % 2 == 0,
            f"model {model}: segments is {segments}; it is an even number, at least 2")


def activation(name: str, segments: int, like: str) -> nn.Module:
    """The nonlinearity that a config names: relu, silu, lma or lma_continuous; the last two start as `like`."""
    if name.startswith("lma"):
        return (LMA if name == "lma" else ContinuousLMA)(segments, like)
    return {"relu": nn.ReLU, "silu": nn.SiLU}[name]()


def activate(module: nn.Module, x: Tensor, inside: Tensor | None) -> Tensor:
    """`module(x)` for x (N, T, C); an LMA is also told which frames (N, T, 1) are inside their utterance."""
    return module(x, inside) if isinstance(module, LMA) else module(x)
