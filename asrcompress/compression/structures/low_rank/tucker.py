"""tucker: a kernel between two changes of basis, W(o, i, t) = sum_ab left(o, a) core(a, b, t) right(b, i) (Tucker-2).

A convolution becomes three: one tap to b channels, the core's taps to a channels, one tap to the outputs. Time stays as
it is: with few taps there is nothing to gain there. The two ranks are the pair that keeps most of the weight for what
it stores, as the truncated HOSVD tells; HOOI (tensorly's) then lowers the error.

A matrix is a kernel of one tap, left x core x right: the truncated SVD with a small square core between, so at equal
storage its error is slightly above that of `svd`. At inference left x core is one matrix. With `context_frames` it is
a tensor of three modes, a kernel that sees all its frames at once: its inputs are so many frames side by side, which
share their basis. That suits spliced frames, and sizes below a tenth.

Tucker, Psychometrika 1966; De Lathauwer, De Moor and Vandewalle, "On the best rank-1 and rank-(R1, R2, ..., RN)
approximation of higher-order tensors", SIAM J. Matrix Anal. Appl. 2000; Kim et al., "Compression of deep convolutional
neural networks for fast and low power mobile applications", ICLR 2016.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from asrcompress.compression.structures.base import (
    CannotShrink,
    RateDistortion,
    Structure,
    dense_std,
    needs_grad,
)
from asrcompress.compression.structures.fitting import draw, in_range
from asrcompress.compression.structures.low_rank._context_frames import from_kernel, kernel_shape, to_kernel
from asrcompress.compression.structures.low_rank._tucker2 import (
    Frontier,
    bases,
    concave_steps,
    frontier,
    limits,
    tucker2,
)
from asrcompress.compression.structures.low_rank._unfolding import unfold
from asrcompress.compression.structures.low_rank._vbmf import vbmf_rank
from asrcompress.convolution import conv1d
from asrcompress.errors import UserError
from asrcompress.options import require

Ranks = Sequence[int] | int


@dataclass(frozen=True)
class TuckerOptions:
    """Where no budget shares out a size, one of `ranks`, `energy` and `vbmf` says how much is kept."""

    ranks: int | tuple[int, ...] | None = None  # (a, b), or one for both, cut to what the shape has
    energy: float | None = None  # the least fraction of the squared norm to keep
    vbmf: float | None = None  # 1: the ranks that variational Bayes finds; a smaller w takes full - w (full - found)
    rank_multiple: int = 1  # ranks that are not given are multiples of this
    sweeps: int = 3  # of HOOI
    context_frames: int = 1  # frames that stand side by side in the inputs of a matrix: the taps of a kernel

    def __post_init__(self) -> None:
        pair = (self.ranks,) * 2 if isinstance(self.ranks, int) else (1, 1) if self.ranks is None else self.ranks
        require(len(pair) == 2 and min(pair) >= 1,
                f"tucker: ranks is {self.ranks}; it is two numbers of at least 1, or one for both")
        for name in ("energy", "vbmf"):
            fraction = getattr(self, name)
            require(fraction is None or 0 < fraction <= 1, f"tucker: {name} is {fraction}; it is above 0 and at most 1")
        require(self.rank_multiple >= 1, f"tucker: rank_multiple is {self.rank_multiple}; it is at least 1")
        require(self.sweeps >= 0, f"tucker: sweeps is {self.sweeps}; it is at least 0")
        require(self.context_frames >= 1, f"tucker: context_frames is {self.context_frames}; it is at least 1")


class Tucker(Structure):
    """W = left x core x right with `ranks` (a, b); the three start with the same Frobenius norm."""

    name = "tucker"
    Options = TuckerOptions

    def __init__(self, shape: Sequence[int], ranks: Sequence[int], context_frames: int = 1) -> None:
        super().__init__(shape)
        out, inputs, taps = kernel = kernel_shape(self.shape, context_frames)
        a, b = (int(rank) for rank in ranks)
        if min(a, b) < 1 or [a, b] != possible((a, b), kernel):
            raise UserError(f"tucker of {self.shape} has no ranks {list(ranks)}; the first is at most out and taps "
                            "times the second, the second at most in and taps times the first")
        self.ranks, self.context_frames = (a, b), 1 if len(self.shape) == 3 else context_frames
        self.left = nn.Parameter(torch.zeros(out, a))
        self.core = nn.Parameter(torch.zeros(a, b, taps))
        self.right = nn.Parameter(torch.zeros(b, inputs))

    @classmethod
    @torch.no_grad()
    def fit(cls, weight: Tensor, options: TuckerOptions, size: float | None = None, seed: int = 0) -> "Tucker":
        """The pair of ranks that keeps most at `size`, or what the options say; then `sweeps` of HOOI.

        `vbmf` takes its ranks from the two unfoldings, as Kim et al. do, or "weakened" ones. Errors: CannotShrink;
        UserError unless exactly one says how much is kept, and where the context frames do not divide the inputs.
        """
        ranks: Ranks | None = options.ranks
        if sum(given is not None for given in (size, ranks, options.energy, options.vbmf)) != 1:
            raise UserError("structure tucker needs exactly one of size, ranks, energy and vbmf "
                            "(with a budget that shares out a size, leave the others away)")
        target, scale = in_range(weight)
        kernel = to_kernel(target, options.context_frames)
        start = bases(kernel)
        if options.vbmf is not None:
            ranks = _vbmf_ranks(kernel, options.vbmf, options.rank_multiple)
        if ranks is None:
            pairs = _frontier(kernel, start, options.rank_multiple)
            ranks = _ranks_of_size(pairs, weight.shape, size) if size else _ranks_of_energy(pairs, options.energy or 1)
        layer = cls(weight.shape, possible(ranks, kernel.shape), options.context_frames).to(weight)
        sweeps = options.sweeps if kernel.shape[2] > 1 else 0  # a matrix starts at its optimum
        layer._assign(tucker2(kernel, layer.ranks, start, sweeps), scale)
        return layer

    def _assign(self, parts: Sequence[Tensor], scale: float) -> None:
        """Take parts of any norms, in equal ones, for `scale` times their product."""
        norms = [float(part.norm()) for part in parts]
        even = math.prod(norms) ** (1 / 3) * scale ** (1 / 3)
        for parameter, part, norm in zip(self.parameters(), parts, norms, strict=True):
            parameter.copy_(part * (even / norm if norm else 0))

    @classmethod
    def init(cls, shape: Sequence[int], options: TuckerOptions, size: float | None = None, seed: int = 0) -> "Tucker":
        """Normal factors of equal Frobenius norm whose product has the variance of a dense start.

        Without a weight to look at, the ranks of a size are those with the largest product. Errors: as `fit`; `energy`
        and `vbmf` need a trained weight.
        """
        ranks: Ranks | None = options.ranks
        if (size is None) == (ranks is None) or options.energy is not None or options.vbmf is not None:
            raise UserError("structure tucker from scratch needs exactly one of size and ranks, and neither energy nor "
                            "vbmf")
        kernel = kernel_shape(shape, options.context_frames)
        if ranks is None:
            pairs = frontier(torch.ones(limits(kernel)), kernel, options.rank_multiple)
            ranks = _ranks_of_size(pairs, shape, size or 1)
        layer = cls(shape, possible(ranks, kernel), options.context_frames)
        draw(list(layer.parameters()), dense_std(shape) ** 2 / math.prod(layer.ranks), seed)
        return layer

    @classmethod
    def min_parameters(cls, shape: Sequence[int], options: TuckerOptions) -> int:
        return sum(kernel_shape(shape, options.context_frames))

    @classmethod
    @torch.no_grad()
    def rate_distortion(cls, weight: Tensor, options: TuckerOptions, size: float) -> RateDistortion:
        """One step is `rank_multiple` times the parameters of ranks 1 and 1; n steps are the best pair of their cost.

        The gains are the slopes of the concave hull of what the HOSVD keeps; they end where dense is smaller.
        """
        kernel = to_kernel(weight, options.context_frames)
        pairs = _frontier(kernel, bases(kernel), options.rank_multiple)
        cost = options.rank_multiple * cls.min_parameters(weight.shape, options)
        found = [pairs.within(n * cost) for n in range(1, (weight.numel() - 1) // cost + 1)]
        gains = concave_steps([0.0, *(float(pairs.kept[n]) for n in found)])
        total = float(kernel.double().square().sum())
        return RateDistortion(gains, cost, total,
                              lambda n: replace(options, ranks=tuple(pairs.ranks[found[n - 1]].tolist())))

    def spec(self) -> dict[str, Any]:
        context_frames = {"context_frames": self.context_frames} if self.context_frames > 1 else {}
        return {"shape": list(self.shape), "ranks": list(self.ranks), **context_frames}

    def dense(self) -> Tensor:
        return from_kernel(torch.einsum("oa,abt,bi->oit", self.left, self.core, self.right), self.shape)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        if self.context_frames > 1:
            middle = functional.linear(x.unflatten(-1, (self.context_frames, -1)), self.right).flatten(-2)
            middle = functional.linear(middle, self.core.transpose(1, 2).flatten(1))
            return functional.linear(middle, self.left, bias)
        middle, outer = functional.linear(x, self.right), self._outer()
        if outer is None:
            middle, outer = functional.linear(middle, self.core[..., 0]), self.left
        return functional.linear(middle, outer, bias)

    def _outer(self) -> Tensor | None:
        """left x core of a matrix, (out, b): one product less, kept at inference until a change; None in training."""
        if needs_grad((self.left, self.core)):
            self._kept.clear()
            return None
        return self.kept(self._merged, (self.left, self.core))

    def _merged(self) -> Tensor:
        with torch.autocast(self.left.device.type, enabled=False):
            return self.left @ self.core[..., 0]

    def conv1d(self, x: Tensor, stride: int = 1, padding: int = 0, dilation: int = 1,
               bias: Tensor | None = None) -> Tensor:
        middle = conv1d(conv1d(x, self.right.unsqueeze(2)), self.core, None, stride, padding, dilation)
        return conv1d(middle, self.left.unsqueeze(2), bias)

    def macs(self, frames: int, stride: int = 1) -> int:
        if len(self.shape) == 2 and self.context_frames == 1:  # at inference, where left x core is one matrix
            return frames * self.ranks[1] * sum(self.shape)
        first = frames * stride * self.context_frames  # it projects before the stride drops frames
        return first * self.right.numel() + frames * (self.core.numel() + self.left.numel())

    @torch.no_grad()
    def scale_rows(self, scale: Tensor) -> bool:
        self.left.mul_(scale[:, None])
        return True


def possible(ranks: Ranks, kernel: Sequence[int]) -> list[int]:
    """The ranks cut to what a kernel of shape (out, in, taps) can have."""
    taps = kernel[2]
    pair = [ranks, ranks] if isinstance(ranks, int) else ranks
    a, b = (min(rank, limit) for rank, limit in zip(pair, limits(kernel), strict=True))
    return [min(a, taps * b), min(b, taps * a)]


def _frontier(kernel: Tensor, start: tuple[Tensor, Tensor], rank_multiple: int) -> Frontier:
    core = torch.einsum("oit,oa,ib->abt", kernel, *start)
    return frontier(core.double().square().sum(2), kernel.shape, rank_multiple)


def _ranks_of_size(pairs: Frontier, shape: Sequence[int], size: float) -> list[int]:
    found = pairs.within(size * math.prod(shape) + 1e-6)
    if found < 0:
        raise CannotShrink(f"structure tucker of a weight {tuple(shape)} cannot reach size {size:g}; the smallest is "
                           f"{int(pairs.numbers[0]) / math.prod(shape):.2g}, at ranks 1 and 1")
    return pairs.ranks[found].tolist()


def _ranks_of_energy(pairs: Frontier, energy: float) -> list[int]:
    return pairs.ranks[int((pairs.kept < energy * pairs.kept[-1]).sum())].tolist()


def _vbmf_ranks(kernel: Tensor, weaken: float, rank_multiple: int) -> list[int]:
    ranks = []
    for way, full in zip(("input", "output"), limits(kernel.shape), strict=True):
        matrix = unfold(kernel, way)
        found = vbmf_rank(torch.linalg.svdvals(matrix), *matrix.shape)
        rank = max(1, round(full - weaken * (full - found)))
        ranks.append(math.ceil(rank / rank_multiple) * rank_multiple)
    return ranks
