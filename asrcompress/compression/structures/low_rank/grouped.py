"""grouped: the inputs in k equal groups, each with its own singular value decomposition; svd is its k = 1.

The matrix (out, in x taps) is cut along the input channels, W = [W_1 ... W_k], and every block is truncated to the same
rank j. The layer is a grouped kernel of `taps` to k x j channels, then a product with (out, k x j). At equal storage
the total rank k x j grows with k while what may be combined in one direction shrinks: the singular values decide.

Liebenwein, Maalouf, Gal, Feldman and Rus, "Compressing neural networks: towards determining the optimal layer-wise
decomposition" (ALDS), NeurIPS 2021. This is its local step; the global one is conf/budget/alds.yaml.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from asrcompress.compression.structures.base import Candidate, CannotShrink, RateDistortion, Structure, dense_std, exact
from asrcompress.compression.structures.fitting import draw, truncated_svd
from asrcompress.convolution import conv1d
from asrcompress.errors import UserError
from asrcompress.options import require

GROUPS = (1, 2, 4, 8, 16)  # a batched product of more and smaller blocks gains nothing on a CPU


@dataclass(frozen=True)
class GroupedOptions:
    """Where no budget shares out a size, one of `rank` and `error` says how much is kept."""

    groups: int | None = None  # groups of input channels; None: whichever has the smallest error
    rank: int | None = None  # of every group
    error: float | None = None  # the most that `measure` may be
    rank_multiple: int = 1  # a rank that comes from a size or an error is a multiple of this
    measure: Literal["bound", "released", "frobenius"] = "bound"  # see `relative_errors`

    def __post_init__(self) -> None:
        require(self.groups is None or self.groups >= 1, f"grouped: groups is {self.groups}; it is at least 1")
        require(self.rank is None or self.rank >= 1, f"grouped: rank is {self.rank}; it is at least 1")
        require(self.error is None or self.error >= 0, f"grouped: error is {self.error}; it is not below 0")
        require(self.rank_multiple >= 1, f"grouped: rank_multiple is {self.rank_multiple}; it is at least 1")


def blocks(weight: Tensor, groups: int) -> Tensor:
    """(out, in, taps) -> (groups, out, in x taps / groups): the matrix of each group of input channels."""
    return weight.reshape(weight.shape[0], groups, -1).transpose(0, 1)


def relative_errors(weight: Tensor, groups: int, measure: str = "bound") -> Tensor:
    """What is lost, relative to the weight, at rank 0, 1, ... of every group; float64, falling to 0.

    `bound`: sqrt(k) max_i s_(j+1)(W_i) / s_1(W), never below the spectral error |W - W'|_2 / |W|_2. `released`: without
    sqrt(k), as the authors' code has it; the true error is often larger. `frobenius`: |W - W'|_F / |W|_F itself.
    """
    singular = torch.linalg.svdvals(exact(blocks(weight, groups))).double()
    none = singular.new_zeros(1)
    if measure == "frobenius":
        tails = torch.cat([singular.square().sum(0), none]).flip(0).cumsum(0).flip(0)
        return (tails / tails[0].clamp_min(1e-300)).sqrt()
    largest = torch.linalg.matrix_norm(exact(weight).flatten(1), 2).double().clamp_min(1e-300)
    errors = torch.cat([singular.amax(0), none]) / largest
    return errors * math.sqrt(groups) if measure == "bound" else errors


class Grouped(Structure):
    """W = left x blockdiagonal(right) with `groups` blocks of rank `rank`; pays below rank m n / (m groups + n)."""

    name = "grouped"
    Options = GroupedOptions

    def __init__(self, shape: Sequence[int], groups: int, rank: int) -> None:
        super().__init__(shape)
        out, inputs, *taps = self.shape
        _divides(self.shape, groups)
        if not 1 <= rank <= min(out, math.prod(self.shape[1:]) // groups):
            raise UserError(f"grouped: {self.shape} in {groups} groups has no rank {rank}; the rank is at least 1 and "
                            "at most the smaller side of a group's matrix")
        self.groups, self.rank = groups, rank
        self.left = nn.Parameter(torch.zeros(out, groups * rank))
        self.right = nn.Parameter(torch.zeros(groups, rank, inputs // groups, *taps))

    @classmethod
    @torch.no_grad()
    def fit(cls, weight: Tensor, options: GroupedOptions, size: float | None = None, seed: int = 0) -> "Grouped":
        """The groups (all are tried unless given) and rank with the smallest error at `size`.

        Or, with `error`, the fewest parameters that keep `measure` at most there; or this `rank`. Errors: CannotShrink;
        UserError where none or several say how much, or the groups do not divide the inputs.
        """
        rank, error = options.rank, options.error
        if sum(given is not None for given in (size, rank, error)) != 1:
            raise UserError("structure grouped needs exactly one of size, rank and error "
                            "(with a budget that shares out a size, leave rank and error away)")
        if rank is not None:
            return cls._truncate(weight, options.groups or 1, rank)
        choices = cls.error_bounds(weight, options)
        if error is not None:
            best = min((c for c in choices if c.error <= error), key=lambda choice: choice.num_parameters)
        else:
            best = _best_at(choices, weight.shape, size or 0)
        return cls._truncate(weight, best.options.groups, best.options.rank)

    @classmethod
    def _truncate(cls, weight: Tensor, groups: int, rank: int) -> "Grouped":
        layer = cls(weight.shape, groups, rank).to(weight)
        factors = [truncated_svd(block, rank) for block in blocks(weight, groups)]
        layer.left.copy_(torch.cat([left for left, _ in factors], 1))
        layer.right.copy_(torch.stack([right for _, right in factors]).view(layer.right.shape))
        return layer

    @classmethod
    def init(cls, shape: Sequence[int], options: GroupedOptions, size: float | None = None,
             seed: int = 0) -> "Grouped":
        """Normal factors of equal Frobenius norm whose product has the variance of a dense start.

        Without a weight to compare, `groups` are the 1, 2 or 4 that give `size` the largest total rank.
        Errors: as `fit`; `error` needs a trained weight.
        """
        groups, rank = options.groups, options.rank
        if (size is None) == (rank is None) or options.error is not None:
            raise UserError("structure grouped from scratch needs exactly one of size and rank, and no error")
        ways = [groups or 1] if rank else [k for k in _ways(shape, groups) if groups or k <= 4]
        ranks = {k: rank or _largest(shape, k, size or 1, options.rank_multiple) for k in ways}
        groups = max(ranks, key=lambda k: k * ranks[k])
        if not ranks[groups]:
            raise _cannot(shape, size, _cost(shape, groups))
        layer = cls(shape, groups, ranks[groups])
        draw([layer.left, layer.right], dense_std(shape) ** 2 / layer.rank, seed)
        return layer

    @classmethod
    def min_parameters(cls, shape: Sequence[int], options: GroupedOptions) -> int:
        return _cost(shape, options.groups or 1)

    @classmethod
    def error_bounds(cls, weight: Tensor, options: GroupedOptions) -> list[Candidate]:
        """Every (groups, rank), fewest groups first; ranks are multiples, those below one only in the fewest groups."""
        found, multiple = [], options.rank_multiple
        for i, k in enumerate(_ways(weight.shape, options.groups)):
            errors, cost = relative_errors(weight, k, options.measure).tolist(), _cost(weight.shape, k)
            found += [Candidate(r * cost, errors[r], replace(options, groups=k, rank=r))
                      for r in _ranks(weight.shape, k, multiple) if not i or r % multiple == 0]
        return found

    @classmethod
    def rate_distortion(cls, weight: Tensor, options: GroupedOptions, size: float) -> RateDistortion:
        """One step is `rank_multiple` ranks in every group, of the groups that lose least energy at `size`."""
        tries, multiple = [], options.rank_multiple
        for k in _ways(weight.shape, options.groups):
            squares = torch.linalg.svdvals(exact(blocks(weight, k))).double().square().sum(0)
            cost = _cost(weight.shape, k) * multiple
            steps = min((weight.numel() - 1) // cost, len(squares) // multiple)
            gains = squares[: steps * multiple].view(steps, multiple).sum(1)
            near = max(1, int(size * weight.numel() / _cost(weight.shape, k)))
            tries.append((float(squares[near:].sum()), k, gains, cost))
        _, k, gains, cost = min(tries, key=lambda one: one[0])
        energy = float(weight.double().square().sum())
        return RateDistortion(gains, cost, energy, lambda n: replace(options, groups=k, rank=n * multiple))

    def spec(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "groups": self.groups, "rank": self.rank}

    def dense(self) -> Tensor:
        left = self.left.unflatten(1, (self.groups, self.rank)).transpose(0, 1)
        return torch.bmm(left, self.right.flatten(2)).transpose(0, 1).reshape(self.shape)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        left, right = self.left, self.right
        if self.groups == 1:
            return functional.linear(functional.linear(x, right.squeeze(0)), left, bias)
        columns = right.transpose(1, 2)  # `mT` cannot be exported
        one = x.dim() == 2 and len(x) == 1 and not torch.jit.is_tracing()  # a trace is for any number of frames
        if one:  # a fifth of its time went into views
            return functional.linear(torch.bmm(x.reshape(self.groups, 1, -1), columns).view(1, -1), left, bias)
        rows = x.reshape(-1, self.groups, right.shape[2]).transpose(0, 1)
        inner = torch.bmm(rows, columns).transpose(0, 1).flatten(1)
        return functional.linear(inner, left, bias).view(*x.shape[:-1], self.shape[0])

    def conv1d(self, x: Tensor, stride: int = 1, padding: int = 0, dilation: int = 1,
               bias: Tensor | None = None) -> Tensor:
        image = x.unsqueeze(2).contiguous(memory_format=torch.channels_last)  # as asrcompress.convolution.conv1d does
        kernel = self.right.flatten(0, 1).unsqueeze(2).contiguous(memory_format=torch.channels_last)
        inner = functional.conv2d(image, kernel, None, (1, stride), (0, padding), (1, dilation), self.groups)
        return conv1d(inner.squeeze(2), self.left.unsqueeze(2), bias)

    @torch.no_grad()
    def scale_rows(self, scale: Tensor) -> bool:
        self.left.mul_(scale[:, None])
        return True

    def macs(self, frames: int, stride: int = 1) -> int:
        return frames * self.num_parameters()


def _cost(shape: Sequence[int], groups: int) -> int:
    """The parameters of one rank in every group."""
    return shape[0] * groups + math.prod(shape[1:])


def _ranks(shape: Sequence[int], groups: int, rank_multiple: int) -> list[int]:
    """Ranks below `rank_multiple`, its multiples, and the full rank."""
    full = min(shape[0], math.prod(shape[1:]) // groups)
    return [r for r in range(1, full + 1) if r < rank_multiple or r % rank_multiple == 0 or r == full]


def _largest(shape: Sequence[int], groups: int, size: float, rank_multiple: int) -> int:
    """The largest rank that stores at most `size` of the dense parameters; 0 where not even one does."""
    most = size * math.prod(shape) + 1e-9
    ranks = [r for r in _ranks(shape, groups, rank_multiple) if r * _cost(shape, groups) <= most]
    return max(ranks, default=0)


def _cannot(shape: Sequence[int], size: float | None, fewest: int) -> CannotShrink:
    return CannotShrink(f"structure grouped of a weight {tuple(shape)} cannot reach size {size:g}; "
                        f"the smallest is {fewest / math.prod(shape):.2g}, at rank 1")


def _ways(shape: Sequence[int], groups: int | None) -> list[int]:
    """The numbers of groups to try: all that divide the inputs, or the given one."""
    if groups is None:
        return [k for k in GROUPS if shape[1] % k == 0]
    _divides(shape, groups)
    return [groups]


def _divides(shape: Sequence[int], groups: int) -> None:
    if groups < 1 or shape[1] % groups:
        raise UserError(f"grouped: {groups} groups do not divide {shape[1]} inputs; give a divisor, or none")


def _best_at(choices: list[Candidate], shape: Sequence[int], size: float) -> Candidate:
    """The choice with the smallest error of those that store at most `size` of the dense parameters."""
    fitting = [choice for choice in choices if choice.num_parameters <= size * math.prod(shape) + 1e-9]
    if not fitting:
        raise _cannot(shape, size, min(choice.num_parameters for choice in choices))
    return min(fitting, key=lambda choice: choice.error)
