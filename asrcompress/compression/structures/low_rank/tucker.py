"""tucker: a kernel between two changes of basis, W(o, i, t) = sum_ab left(o, a) core(a, b, t) right(b, i) (Tucker-2).

A convolution becomes three: one tap to b channels, the core's taps to a channels, one tap to the outputs. Time stays as
it is: with few taps there is nothing to gain there. The two ranks are the pair that keeps most of the weight for its
numbers, as the truncated HOSVD tells; HOOI (tensorly's) then lowers the error.

A matrix is a kernel of one tap, left x core x right: the truncated SVD with a small square core between, so at equal
numbers its error is slightly above that of `svd`. At inference left x core is one matrix. With `context_frames` it is a tensor
of three modes, a kernel that sees all its frames at once: its inputs are so many context_frames side by side, which share their
basis. That suits spliced frames, and sizes below a tenth.

Tucker, Psychometrika 1966; De Lathauwer, De Moor and Vandewalle, "On the best rank-1 and rank-(R1, R2, ..., RN)
approximation of higher-order tensors", SIAM J. Matrix Anal. Appl. 2000; Kim et al., "Compression of deep convolutional
neural networks for fast and low power mobile applications", ICLR 2016.
"""

import math
from collections.abc import Sequence
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
    state_of,
)
from asrcompress.compression.structures.fitting import draw
from asrcompress.compression.structures.low_rank._context_frames import from_kernel, kernel_shape, to_kernel
from asrcompress.compression.structures.low_rank._tucker2 import (
    Frontier,
    bases,
    concave_steps,
    frontier,
    limits,
    tucker2,
)
from asrcompress.compression.structures.low_rank._vbmf import vbmf_rank
from asrcompress.compression.structures.low_rank.svd import unfold
from asrcompress.convolution import conv1d
from asrcompress.errors import UserError

Ranks = Sequence[int] | int


class Tucker(Structure):
    """W = left x core x right with `ranks` (a, b); the three start with the same Frobenius norm."""

    name = "tucker"

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
        self._merged: tuple[list[Any], Tensor] | None = None

    @classmethod
    @torch.no_grad()
    def fit(cls, weight: Tensor, size: float | None = None, seed: int = 0, *, ranks: Ranks | None = None,
            energy: float | None = None, vbmf: float | None = None, rank_multiple: int = 1, sweeps: int = 3,
            context_frames: int = 1) -> "Tucker":
        """One of `size`, `ranks`, `energy` and `vbmf` says how much is kept; all but `ranks` give a `rank_multiple`.

        `ranks`: (a, b), or one number for both, cut to what the shape has. `energy`: the least fraction of the squared
        norm. `vbmf`: 1 takes the ranks that variational Bayes finds in the two unfoldings, as Kim et al. do; a smaller
        w takes full - w (full - found), the "weakened" ranks. `sweeps` of HOOI. `context_frames` of the inputs of a matrix.
        """
        if sum(given is not None for given in (size, ranks, energy, vbmf)) != 1:
            raise UserError("structure tucker needs exactly one of size, ranks, energy and vbmf "
                            "(with a budget that shares out a size, leave the others away)")
        _check(ranks, energy, vbmf, rank_multiple, sweeps)
        kernel = to_kernel(weight, context_frames)
        start = bases(kernel)
        if vbmf is not None:
            ranks = _vbmf_ranks(kernel, vbmf, rank_multiple)
        if ranks is None:
            pairs = _frontier(kernel, start, rank_multiple)
            ranks = _ranks_of_size(pairs, weight.shape, size) if size else _ranks_of_energy(pairs, energy or 1)
        layer = cls(weight.shape, possible(ranks, kernel.shape), context_frames).to(weight)
        sweeps = sweeps if kernel.shape[2] > 1 else 0  # a matrix starts at its optimum
        layer._assign(tucker2(kernel, layer.ranks, start, sweeps))
        return layer

    def _assign(self, parts: Sequence[Tensor]) -> None:
        norms = [float(part.norm()) for part in parts]
        even = math.prod(norms) ** (1 / 3)
        for parameter, part, norm in zip(self.parameters(), parts, norms, strict=True):
            parameter.copy_(part * (even / norm if norm else 0))

    @classmethod
    def init(cls, shape: Sequence[int], size: float | None = None, seed: int = 0, *, ranks: Ranks | None = None,
             rank_multiple: int = 1, context_frames: int = 1) -> "Tucker":
        """Normal factors of equal Frobenius norm whose product has the variance of a dense start.

        Without a weight to look at, the ranks of a size are those with the largest product.
        """
        if (size is None) == (ranks is None):
            raise UserError("structure tucker from scratch needs exactly one of size and ranks")
        _check(ranks, None, None, rank_multiple, 0)
        kernel = kernel_shape(shape, context_frames)
        if ranks is None:
            ranks = _ranks_of_size(frontier(torch.ones(limits(kernel)), kernel, rank_multiple), shape, size or 1)
        layer = cls(shape, possible(ranks, kernel), context_frames)
        draw(list(layer.parameters()), dense_std(shape) ** 2 / math.prod(layer.ranks), seed)
        return layer

    @classmethod
    def min_parameters(cls, shape: Sequence[int], *, ranks: Ranks | None = None, energy: float | None = None,
                 vbmf: float | None = None, rank_multiple: int = 1, sweeps: int = 3, context_frames: int = 1) -> int:
        return sum(kernel_shape(shape, context_frames))

    @classmethod
    @torch.no_grad()
    def rate_distortion(cls, weight: Tensor, size: float, *, ranks: Ranks | None = None, energy: float | None = None,
              vbmf: float | None = None, rank_multiple: int = 1, sweeps: int = 3, context_frames: int = 1) -> RateDistortion:
        """One step is `rank_multiple` times the numbers of ranks 1 and 1; n steps stand for the best pair of their cost.

        The gains are the slopes of the concave hull of what the HOSVD keeps; they end where dense is smaller.
        """
        _check(ranks, energy, vbmf, rank_multiple, sweeps)
        kernel = to_kernel(weight, context_frames)
        pairs, cost = _frontier(kernel, bases(kernel), rank_multiple), rank_multiple * cls.min_parameters(weight.shape, context_frames=context_frames)
        found = [pairs.within(n * cost) for n in range(1, (weight.numel() - 1) // cost + 1)]
        gains = concave_steps([0.0, *(float(pairs.kept[n]) for n in found)])
        total = float(kernel.double().square().sum())
        return RateDistortion(gains, cost, total, lambda n: {"ranks": pairs.ranks[found[n - 1]].tolist()})

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
        """left x core of a matrix, (out, b): one product less, kept at inference until they change; None in training.

        Beside `cached`, which keeps the whole weight, and which at a batch of one takes longer to look than this saves.
        """
        left, core = self.left, self.core
        if needs_grad((left, core)):
            self._merged = None
            return None
        state = state_of((left, core))
        if self._merged is None or self._merged[0] != state:
            with torch.autocast(left.device.type, enabled=False):
                self._merged = state, left @ core[..., 0]
        return self._merged[1]

    def train(self, mode: bool = True) -> "Tucker":
        self._merged = None
        super().train(mode)
        return self

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


def _check(ranks: Ranks | None, energy: float | None, vbmf: float | None, rank_multiple: int, sweeps: int) -> None:
    pair = [1, 1] if ranks is None else [ranks, ranks] if isinstance(ranks, int) else list(ranks)
    if len(pair) != 2 or min(pair) < 1 or rank_multiple < 1 or sweeps < 0:
        raise UserError("tucker: ranks are two numbers, or one for both; they and rank_multiple are at least 1, sweeps 0")
    if any(share is not None and not 0 < share <= 1 for share in (energy, vbmf)):
        raise UserError("tucker: energy and vbmf are above 0 and at most 1")
