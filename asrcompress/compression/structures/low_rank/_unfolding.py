"""A weight as a matrix, its spectrum, and the factors of its truncation, for all inputs or those that were seen.

A kernel (out, in, taps) has two unfoldings: `input` is the matrix (out, in x taps), `output` is (out x taps, in).
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from asrcompress.compression.structures.base import CannotShrink, exact
from asrcompress.compression.structures.fitting import truncated_svd
from asrcompress.compression.structures.low_rank import _data_aware

Unfolding = Literal["input", "output"]


def unfold(weight: Tensor, unfolding: str) -> Tensor:
    """(out, in, taps) -> (out, in x taps) for `input`, (out x taps, in) for `output`; a matrix stays what it is."""
    if weight.dim() == 2 or unfolding == "input":
        return weight.flatten(1)
    return weight.transpose(1, 2).flatten(0, 1)


def sides(shape: Sequence[int], unfolding: str) -> tuple[int, int]:
    """(m, n) of the unfolded matrix."""
    out, inputs, taps = (*shape, 1)[:3]
    return (out, inputs * taps) if unfolding == "input" else (out * taps, inputs)


def unfoldings(shape: Sequence[int], unfolding: Literal["best", "input", "output"],
               size: float | None = None) -> list[Unfolding]:
    """The unfoldings to try: of `best`, those that reach the size, or the one that comes nearest to it."""
    if len(shape) == 2 or shape[2] == 1:
        return ["input"]
    if unfolding != "best":
        return [unfolding]
    both: list[Unfolding] = ["input", "output"]
    ways = sorted(both, key=lambda way: sum(sides(shape, way)))
    return [way for way in ways if size is None or sum(sides(shape, way)) <= size * math.prod(shape) + 1e-9] or ways[:1]


def factors(weight: Tensor, unfolding: str, rank: int, moments: Tensor | None) -> tuple[Tensor, Tensor]:
    """The two factors of an unfolded weight, (m, rank) and (rank, n); for the outputs of inputs with these moments,
    where they are given."""
    matrix = unfold(weight, unfolding)
    if moments is None:
        return truncated_svd(matrix, rank)
    left = _data_aware.principal_outputs(matrix, _unfolded_moments(weight.shape, unfolding, moments))[0][:, :rank]
    right = left.T @ matrix.double()
    if unfolding == "output":
        left = unfold(_data_aware.regress(weight, right, moments), unfolding)
    return _data_aware.balanced(left, right)


def spectrum(weight: Tensor, unfolding: str, moments: Tensor | None) -> Tensor:
    """The energy of every rank, falling, float64: squared singular values, of W C^(1/2) where moments are given."""
    matrix = unfold(weight, unfolding)
    if moments is None:
        return torch.linalg.svdvals(exact(matrix)).double().square()
    return _data_aware.principal_outputs(matrix, _unfolded_moments(weight.shape, unfolding, moments))[1]


def _unfolded_moments(shape: Sequence[int], unfolding: str, moments: Tensor) -> Tensor:
    return moments if unfolding == "input" else _data_aware.frame_moments(moments, shape[2])


def energy_rank(singular: Tensor, energy: float) -> int:
    """The smallest rank whose squared singular values sum to at least this fraction of all (as in Kaldi)."""
    total = singular.double().square().cumsum(0)
    return min(int((total < energy * total[-1]).sum()) + 1, len(singular))


def size_rank(shape: Sequence[int], unfolding: str, size: float, rank_multiple: int = 1,
              name: str = "svd") -> int:
    """The largest rank that stores at most `size` of the dense parameters, a multiple where it reaches one.

    Errors: CannotShrink where rank 1 stores more.
    """
    m, n = sides(shape, unfolding)
    rank = min(int(size * m * n / (m + n) + 1e-9), m, n)
    if rank < 1:
        raise CannotShrink(f"structure {name} of a weight {tuple(shape)} cannot reach size {size:g}; "
                           f"the smallest is {(m + n) / (m * n):.2g}, at rank 1")
    return rank - rank % rank_multiple if rank >= rank_multiple else rank
