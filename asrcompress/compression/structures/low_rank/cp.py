"""cp: a kernel as a sum of R separable terms, W(o, i, t) = sum_r left(o, r) taps(r, t) right(r, i).

A convolution becomes three: one tap to R channels, a filter of `taps` on each, one tap to the outputs. A matrix has two
modes, and its CP decomposition of rank R is the product of two factors, the truncated SVD. With `context_frames` it has
three, those of a kernel that sees all its frames at once: its inputs are so many frames side by side.

The best R terms need not exist: least squares can drive huge terms to cancel each other, and such a layer cannot be
fine-tuned. So (1) the start is orthogonal: every singular vector of an unfolding is itself a small matrix, whose
singular vectors are the other two factors; the R largest of these terms are kept. (2) ALS has a ridge, which holds down
the sensitivity, sum_r of |term r|^2: for orthogonal terms it is the squared norm that is kept, for cancelling ones it
grows without bound. (3) The three factors of a term have equal norms. The sweeps are ours, as tensorly's `parafac`
builds the Khatri-Rao matrix (out x in, R) in each one, hundreds of MB and an order of magnitude in time here.

Hitchcock, J. Math. Phys. 1927; Lebedev et al., "Speeding-up convolutional neural networks using fine-tuned
CP-decomposition", ICLR 2015; Phan et al., "Stable low-rank tensor decomposition for compression of convolutional neural
network", ECCV 2020.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from asrcompress.compression.structures.base import CannotShrink, RateDistortion, Structure, dense_std
from asrcompress.compression.structures.fitting import draw, in_range, truncated_svd
from asrcompress.compression.structures.low_rank._context_frames import from_kernel, kernel_shape, to_kernel
from asrcompress.convolution import conv1d
from asrcompress.errors import UserError
from asrcompress.options import require

Factors = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class CpOptions:
    """Where no budget shares out a size, `rank` says how much is kept."""

    rank: int | None = None  # terms; cut to what an exact sum of terms needs at most
    rank_multiple: int = 1  # a rank that comes from a size is a multiple of this
    sweeps: int = 100  # of ALS: a fixed number, not a time, so that every machine gives the same layer
    ridge: float = 0.01  # relative to the terms; 0 gives the least error and the most sensitive terms
    context_frames: int = 1  # frames that stand side by side in the inputs of a matrix: the taps of a kernel

    def __post_init__(self) -> None:
        require(self.rank is None or self.rank >= 1, f"cp: rank is {self.rank}; it is at least 1")
        require(self.rank_multiple >= 1, f"cp: rank_multiple is {self.rank_multiple}; it is at least 1")
        require(self.sweeps >= 0, f"cp: sweeps is {self.sweeps}; it is at least 0")
        require(0 <= self.ridge < math.inf, f"cp: ridge is {self.ridge}; it is at least 0")
        require(self.context_frames >= 1, f"cp: context_frames is {self.context_frames}; it is at least 1")


def orthogonal_terms(kernel: Tensor) -> tuple[Tensor, Factors]:
    """An exact sum of orthonormal separable terms: values (R,) descending, factors (out, R), (in, R), (taps, R).

    W = sum_s sigma_s u_s x M_s is the SVD of the unfolding (out, in x taps), and each M_s (in, taps) has an SVD itself.
    What the terms after the n-th leave out is the root of their summed squares.
    """
    u, s, vh = torch.linalg.svd(kernel.flatten(1), full_matrices=False)
    inner = (s[:, None] * vh).unflatten(1, kernel.shape[1:])
    a, values, b = torch.linalg.svd(inner, full_matrices=False)  # (s, in, n), (s, n), (s, n, taps)
    order = values.flatten().argsort(descending=True, stable=True)
    first, second = order // values.shape[1], order % values.shape[1]
    return values.flatten()[order], (u[:, first], a[first, :, second].T, b[first, second].T)


def start(kernel: Tensor, rank: int) -> tuple[Tensor, Factors]:
    """`orthogonal_terms` over the outputs or over the inputs, whichever keeps more in `rank` terms; all its terms.

    The kernel is (out, in, taps), the factors (out, terms), (in, terms), (taps, terms).
    """
    values, factors = orthogonal_terms(kernel)
    others, (a, b, c) = orthogonal_terms(kernel.transpose(0, 1))
    if others[:rank].square().sum() > values[:rank].square().sum():
        return others, (b, a, c)
    return values, factors


def balanced(factors: Sequence[Tensor]) -> Factors:
    """The same terms, the factors of each with the same norm."""
    norms = torch.stack([factor.norm(dim=0) for factor in factors])
    a, b, c = (factor * (norms.prod(0).pow(1 / 3) / norm.clamp_min(1e-30))
               for factor, norm in zip(factors, norms, strict=True))
    return a, b, c


def als(kernel: Tensor, factors: Factors, sweeps: int, ridge: float) -> Factors:
    """Alternating least squares for |W - W'|^2 + ridge x (sum of the squares of all factors), from `factors`."""
    slices = kernel.permute(2, 0, 1).contiguous()
    a, b, c = factors
    for _ in range(sweeps):
        a = _solve(b, c, ((slices @ b) * c[:, None]).sum(0), ridge)
        seen = slices.transpose(1, 2) @ a  # (taps, in, R)
        b = _solve(a, c, (seen * c[:, None]).sum(0), ridge)
        c = _solve(a, b, (seen * b).sum(1), ridge)
        a, b, c = balanced((a, b, c))
    return a, b, c


def _solve(one: Tensor, two: Tensor, right: Tensor, ridge: float) -> Tensor:
    """The factor (n, R) with factor x (gram of the other two + ridge) = right (n, R)."""
    gram = ((one.T @ one) * (two.T @ two)).double()
    gram.diagonal().add_(max(ridge, 1e-12 * float(gram.trace()), 1e-30))
    return torch.cholesky_solve(right.double().T, torch.linalg.cholesky(gram)).T.to(right)


def sensitivity(factors: Sequence[Tensor]) -> float:
    """sum_r |term r|^2, from factors (n, R): compare it with the squared norm of the weight."""
    squares = torch.stack([factor.detach().double().square().sum(0) for factor in factors])
    return float(squares.prod(0).sum())


class Cp(Structure):
    """`rank` terms; left (out, R), right (R, in), and for kernels of more than one tap also taps (R, taps).

    `context_frames` of the inputs of a matrix are the taps of a kernel.
    """

    name = "cp"
    Options = CpOptions

    def __init__(self, shape: Sequence[int], rank: int, context_frames: int = 1) -> None:
        super().__init__(shape)
        out, inputs, taps = kernel_shape(self.shape, context_frames)
        if rank < 1:
            raise UserError(f"cp of {self.shape} has no rank {rank}; it is at least 1")
        self.rank, self.context_frames = rank, 1 if len(self.shape) == 3 else context_frames
        self.left = nn.Parameter(torch.zeros(out, rank))
        self.taps = nn.Parameter(torch.zeros(rank, taps)) if taps > 1 else None
        self.right = nn.Parameter(torch.zeros(rank, inputs))

    @classmethod
    @torch.no_grad()
    def fit(cls, weight: Tensor, options: CpOptions, size: float | None = None, seed: int = 0) -> "Cp":
        """`sweeps` of ALS from the largest orthogonal terms; for a matrix, or a kernel of one tap, the truncated SVD.

        Errors: CannotShrink; UserError unless exactly one of `size` and `rank` is given, and where the context frames
        do not divide the inputs.
        """
        rank = _rank(weight.shape, options, size)
        target, power = in_range(weight)
        kernel = to_kernel(target, options.context_frames)
        if kernel.shape[2] == 1:
            left, right = truncated_svd(kernel.flatten(1), rank)
            parts = [left, right.T]
        else:
            values, factors = start(kernel, rank)
            roots = values[:rank].pow(1 / 3)
            scale = float(values[:rank].mean() ** (4 / 3))  # of the grams: each is a product of two squared factors
            first = balanced([factor[:, :rank] * roots for factor in factors])
            parts = [*als(kernel, first, options.sweeps, options.ridge * scale)]
        layer = cls(weight.shape, parts[0].shape[1], options.context_frames).to(weight)
        for parameter, part in zip(layer._factors(), parts, strict=True):
            parameter.copy_(part * power ** (1 / len(parts)))
        return layer

    def _factors(self) -> list[Tensor]:
        """Views (out, R), (in, R) and, where there are taps, (taps, R)."""
        return [self.left, self.right.T, *([] if self.taps is None else [self.taps.T])]

    @classmethod
    def init(cls, shape: Sequence[int], options: CpOptions, size: float | None = None, seed: int = 0) -> "Cp":
        """Normal factors of equal Frobenius norm whose sum of terms has the variance of a dense start.

        Errors: as `fit`.
        """
        layer = cls(shape, _rank(shape, options, size), options.context_frames)
        draw(layer._factors(), dense_std(shape) ** 2 / layer.rank, seed)
        return layer

    @classmethod
    def min_parameters(cls, shape: Sequence[int], options: CpOptions) -> int:
        return cost(shape, options.context_frames)

    @classmethod
    @torch.no_grad()
    def rate_distortion(cls, weight: Tensor, options: CpOptions, size: float) -> RateDistortion:
        """One step is `rank_multiple` of the orthogonal terms and removes their squares; ALS then removes more."""
        each, multiple = cost(weight.shape, options.context_frames), options.rank_multiple
        kernel = to_kernel(weight, options.context_frames)
        squares = start(kernel, max(1, int(size * weight.numel() / each)))[0].double().square()
        steps = min((weight.numel() - 1) // (each * multiple), len(squares) // multiple)
        gains = squares[: steps * multiple].view(steps, multiple).sum(1)
        energy = float(squares.sum())
        return RateDistortion(gains, each * multiple, energy, lambda n: replace(options, rank=n * multiple))

    def spec(self) -> dict[str, Any]:
        frames = {"context_frames": self.context_frames} if self.context_frames > 1 else {}
        return {"shape": list(self.shape), "rank": self.rank, **frames}

    def dense(self) -> Tensor:
        if self.taps is None:
            return (self.left @ self.right).view(self.shape)
        return from_kernel(torch.einsum("or,rt,ri->oit", self.left, self.taps, self.right), self.shape)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        if self.taps is None:
            return functional.linear(functional.linear(x, self.right), self.left, bias)
        middle = functional.linear(x.unflatten(-1, (self.context_frames, -1)), self.right)
        return functional.linear((middle * self.taps.T).sum(-2), self.left, bias)

    def conv1d(self, x: Tensor, stride: int = 1, padding: int = 0, dilation: int = 1,
               bias: Tensor | None = None) -> Tensor:
        middle, left = conv1d(x, self.right.unsqueeze(2)), self.left.unsqueeze(2)
        if self.taps is None:
            return conv1d(middle, left, bias, stride, padding)
        filters = self.taps[:, None, None]  # an image of height one, which keeps `conv1d`'s memory layout
        middle = functional.conv2d(middle.unsqueeze(2), filters, None, (1, stride), (0, padding), (1, dilation),
                                   self.rank).squeeze(2)
        return conv1d(middle, left, bias)

    def macs(self, frames: int, stride: int = 1) -> int:
        first = frames * stride * self.context_frames  # it projects before the stride drops frames
        return first * self.right.numel() + frames * (self.num_parameters() - self.right.numel())

    @torch.no_grad()
    def scale_rows(self, scale: Tensor) -> bool:
        self.left.mul_(scale[:, None])
        return True


def cost(shape: Sequence[int], context_frames: int = 1) -> int:
    """The parameters of one term; a single tap is none."""
    out, inputs, taps = kernel_shape(shape, context_frames)
    return out + inputs + (taps if taps > 1 else 0)


def _rank(shape: Sequence[int], options: CpOptions, size: float | None) -> int:
    """The rank that is asked for, cut to what an exact sum of terms of this shape needs at most."""
    rank, multiple = options.rank, options.rank_multiple
    if (size is None) == (rank is None):
        raise UserError("structure cp needs exactly one of size and rank "
                        "(with a budget that shares out a size, leave rank away)")
    each = cost(shape, options.context_frames)
    most = rank or int((size or 0) * math.prod(shape) / each + 1e-9)
    if most < 1:
        raise CannotShrink(f"structure cp of a weight {tuple(shape)} cannot reach size {size:g}; the smallest is "
                           f"{each / math.prod(shape):.2g}, at rank 1")
    most -= most % multiple if rank is None and most >= multiple else 0
    out, inputs, taps = kernel_shape(shape, options.context_frames)
    return min(most, out * inputs, out * taps, inputs * taps)
