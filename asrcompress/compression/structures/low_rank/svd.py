"""svd: a weight as the product of two thin matrices, from its truncated singular value decomposition.

A convolution has two unfoldings. `input`: the matrix (out, in x taps), a kernel of `taps` to r channels, then a
product with (out, r). `output`: the matrix (out x taps, in), a product to r channels, which all taps share, then a
kernel of `taps` to the outputs. `best` is the one with the smaller error. For a matrix they are the same.

With `data_aware` the error is that of the layer's outputs on calibration data (see `_data_aware`), which a budget then
shares out too. For the input unfolding the truncation is optimal. The output unfolding projects the principal frames,
as if the taps were uncorrelated, and its kernel is then the least squares one for the taps as they are.

Eckart and Young, Psychometrika 1936; Xue, Li and Gong, "Restructuring of deep neural network acoustic models with
singular value decomposition", Interspeech 2013.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from asrcompress.compression.structures.base import Candidate, RateDistortion, Structure, dense_std, per_row
from asrcompress.compression.structures.fitting import draw, output_energy
from asrcompress.compression.structures.low_rank._data_aware import checked_moments
from asrcompress.compression.structures.low_rank._unfolding import (
    energy_rank,
    factors,
    sides,
    size_rank,
    spectrum,
    unfoldings,
)
from asrcompress.convolution import conv1d
from asrcompress.errors import UserError
from asrcompress.options import require


@dataclass(frozen=True)
class SvdOptions:
    """Where no budget shares out a size, one of `rank` and `energy` says how much is kept."""

    rank: int | None = None
    energy: float | None = None  # the least fraction of the squared singular values to keep, above 0 and at most 1
    unfolding: Literal["best", "input", "output"] = "best"
    rank_multiple: int = 1  # a rank that comes from a size or an energy is a multiple of this
    data_aware: bool = False  # truncate for the layer's outputs: needs the moments of its inputs
    ridge: float = 0.01  # added to the diagonal of the moments, relative to its mean

    def __post_init__(self) -> None:
        require(self.rank is None or self.rank >= 1, f"svd: rank is {self.rank}; it is at least 1")
        require(self.energy is None or 0 < self.energy <= 1,
                f"svd: energy is {self.energy}; it is above 0 and at most 1")
        require(self.rank_multiple >= 1, f"svd: rank_multiple is {self.rank_multiple}; it is at least 1")
        require(0 <= self.ridge < math.inf, f"svd: ridge is {self.ridge}; it is at least 0")


class Svd(Structure):
    """W = left x right with `rank` columns and rows; pays off below rank m n / (m + n)."""

    name = "svd"
    Options = SvdOptions

    def __init__(self, shape: Sequence[int], rank: int, unfolding: str = "input") -> None:
        super().__init__(shape)
        if unfolding not in ("input", "output") or not 1 <= rank <= min(sides(self.shape, unfolding)):
            raise UserError(f"svd of {self.shape} has no rank {rank} in the unfolding '{unfolding}'; "
                            "the rank is at most the smaller side, the unfolding is input or output")
        self.rank, self.unfolding = rank, unfolding
        out, inputs, *taps = self.shape
        in_taps, out_taps = (taps, []) if unfolding == "input" else ([], taps)
        self.left = nn.Parameter(torch.zeros(out, rank, *out_taps))
        self.right = nn.Parameter(torch.zeros(rank, inputs, *in_taps))

    @classmethod
    @torch.no_grad()
    def fit(cls, weight: Tensor, options: SvdOptions, size: float | None = None, seed: int = 0,
            moments: Tensor | None = None) -> "Svd":
        """One of `size`, `rank` and `energy` says how much is kept.

        With `data_aware`, `moments` are those of the inputs, (in x taps)^2, as `compression.calibration` collects them.
        Errors: CannotShrink; UserError where none or several say how much, or moments are missing.
        """
        rank, energy = options.rank, options.energy
        if sum(given is not None for given in (size, rank, energy)) != 1:
            raise UserError(f"structure {cls.name} needs exactly one of size, rank and energy "
                            "(with a budget that shares out a size, leave rank and energy away)")
        seen = checked_moments(options.data_aware, moments, options.ridge, weight.shape)
        tries = []
        for way in unfoldings(weight.shape, options.unfolding, size):
            r = full = min(sides(weight.shape, way))
            if rank is not None:
                r = rank
            elif size is not None:
                r = size_rank(weight.shape, way, size, options.rank_multiple, cls.name)
            elif energy is not None:
                found = energy_rank(spectrum(weight, way, seen).sqrt(), energy)
                r = math.ceil(found / options.rank_multiple) * options.rank_multiple
            tries.append(cls._from_factors(weight, way, *factors(weight, way, min(r, full), seen)))
        if energy is not None:
            return min(tries, key=lambda layer: layer.num_parameters())
        return min(tries, key=lambda layer: (layer.num_parameters() >= weight.numel(), _lost(layer, weight, seen)))

    @classmethod
    def _from_factors(cls, weight: Tensor, unfolding: str, left: Tensor, right: Tensor) -> "Svd":
        layer = cls(weight.shape, left.shape[1], unfolding).to(weight)
        if layer.left.dim() == 3:
            left = left.unflatten(0, (weight.shape[0], -1)).transpose(1, 2)
        with torch.no_grad():
            layer.left.copy_(left)
            layer.right.copy_(right.reshape(layer.right.shape))
        return layer

    @classmethod
    def init(cls, shape: Sequence[int], options: SvdOptions, size: float | None = None, seed: int = 0) -> "Svd":
        """Normal factors of equal Frobenius norm whose product has the variance of a dense start.

        Without a weight to compare, `best` is the unfolding that gives the larger rank. Errors: as `fit`; `energy`
        needs a trained weight.
        """
        rank = options.rank
        if (size is None) == (rank is None) or options.energy is not None:
            raise UserError(f"structure {cls.name} from scratch needs exactly one of size and rank, and no energy")
        way = unfoldings(shape, options.unfolding)[0]
        layer = cls(shape, rank or size_rank(shape, way, size or 1.0, options.rank_multiple, cls.name), way)
        draw([layer.left, layer.right], dense_std(shape) ** 2 / layer.rank, seed)
        return layer

    @classmethod
    def min_parameters(cls, shape: Sequence[int], options: SvdOptions) -> int:
        return min(sum(sides(shape, way)) for way in unfoldings(shape, options.unfolding))

    @classmethod
    @torch.no_grad()
    def rate_distortion(cls, weight: Tensor, options: SvdOptions, size: float,
                        moments: Tensor | None = None) -> RateDistortion:
        """One step is `rank_multiple` ranks and removes their energy; it ends where dense is smaller.

        Errors: UserError where moments are missing.
        """
        multiple = options.rank_multiple
        seen = checked_moments(options.data_aware, moments, options.ridge, weight.shape)
        tries = []
        for way in unfoldings(weight.shape, options.unfolding):
            m, n = sides(weight.shape, way)
            squares = spectrum(weight, way, seen)
            steps = (m * n - 1) // ((m + n) * multiple)
            gains = squares[: steps * multiple].unflatten(0, (steps, multiple)).sum(1) if steps else squares[:0]
            near = max(1, int(size * m * n / (m + n)))
            lost = float(squares[near:].sum())
            if seen is not None:  # the spectra of two unfoldings do not compare
                asked = replace(options, rank=min(near, m, n), energy=None, unfolding=way)
                lost = _lost(cls.fit(weight, asked, moments=moments), weight, seen)
            tries.append((lost, way, gains, (m + n) * multiple, float(squares.sum())))
        _, way, gains, cost, total = min(tries, key=lambda one: one[0])
        return RateDistortion(gains, cost, total, lambda n: replace(options, rank=n * multiple, unfolding=way))

    @classmethod
    def error_bounds(cls, weight: Tensor, options: SvdOptions, moments: Tensor | None = None) -> list[Candidate]:
        """s_(r+1) / s_1 at rank 1 and at every multiple, of each unfolding relative to its own s_1.

        Errors: UserError where moments are missing.
        """
        seen = checked_moments(options.data_aware, moments, options.ridge, weight.shape)
        found = []
        for way in unfoldings(weight.shape, options.unfolding):
            singular = spectrum(weight, way, seen).sqrt()
            errors = (singular / singular[0].clamp_min(1e-150)).tolist() + [0.0]
            found += [Candidate(r * sum(sides(weight.shape, way)), errors[r], replace(options, rank=r, unfolding=way))
                      for r in range(1, len(errors)) if r == 1 or r % options.rank_multiple == 0]
        return found

    def spec(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "rank": self.rank, "unfolding": self.unfolding}

    def dense(self) -> Tensor:
        if self.left.dim() == 3:
            return torch.einsum("ork,ri->oik", self.left, self.right)
        return (self.left @ self.right.flatten(1)).view(self.shape)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return functional.linear(functional.linear(x, self.right), self.left, bias)

    def conv1d(self, x: Tensor, stride: int = 1, padding: int = 0, dilation: int = 1,
               bias: Tensor | None = None) -> Tensor:
        if self.unfolding == "input":
            return conv1d(conv1d(x, self.right, None, stride, padding, dilation), self.left.unsqueeze(2), bias)
        return conv1d(conv1d(x, self.right.unsqueeze(2)), self.left, bias, stride, padding, dilation)

    def macs(self, frames: int, stride: int = 1) -> int:
        first = frames * (stride if self.unfolding == "output" else 1)  # it projects before the stride drops frames
        return first * self.right.numel() + frames * self.left.numel()

    @torch.no_grad()
    def scale_rows(self, scale: Tensor) -> bool:
        self.left.mul_(per_row(scale, self.left.dim()))
        return True

    @torch.no_grad()
    def scale_columns(self, scale: Tensor) -> None:
        """Multiply the columns of the weight, (out, in), by `scale` (in,) in place."""
        self.right.mul_(scale)


def _lost(layer: Svd, weight: Tensor, moments: Tensor | None) -> float:
    """The squared error of a layer's weight, or of its outputs where the moments of the inputs are given."""
    error = layer.dense().detach() - weight
    return float(error.norm()) ** 2 if moments is None else output_energy(error, moments)
