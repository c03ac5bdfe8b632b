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
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from asrcompress.compression.structures.base import Candidate, CannotShrink, RateDistortion, Structure, dense_std
from asrcompress.compression.structures.fitting import draw
from asrcompress.compression.structures.low_rank import _data_aware
from asrcompress.convolution import conv1d
from asrcompress.errors import UserError


def truncated_svd(matrix: Tensor, rank: int, split: float = 0.5) -> tuple[Tensor, Tensor]:
    """The nearest matrix of this rank, in two factors: (m, n) -> left (m, rank), right (rank, n).

    left = U_r S_r^split and right = S_r^(1 - split) V_r^T; at the default both have the same Frobenius norm. The error
    is s_(r+1) in the spectral norm and the root of the sum of the dropped s^2 in the Frobenius norm.
    """
    exact = matrix if matrix.dtype in (torch.float32, torch.float64) else matrix.float()
    u, s, vh = torch.linalg.svd(exact, full_matrices=False)
    left, right = u[:, :rank] * s[:rank] ** split, s[:rank, None] ** (1 - split) * vh[:rank]
    return left.to(matrix.dtype), right.to(matrix.dtype)


def truncated(weight: Tensor, unfolding: str, rank: int, moments: Tensor | None) -> tuple[Tensor, Tensor]:
    """The two factors of an unfolded weight; for the outputs of inputs with these moments, where they are given."""
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
        return torch.linalg.svdvals(matrix.float()).double().square()
    return _data_aware.principal_outputs(matrix, _unfolded_moments(weight.shape, unfolding, moments))[1]


def _unfolded_moments(shape: Sequence[int], unfolding: str, moments: Tensor) -> Tensor:
    return moments if unfolding == "input" else _data_aware.frame_moments(moments, shape[2])


def energy_rank(singular: Tensor, energy: float) -> int:
    """The smallest rank whose squared singular values sum to at least this fraction of all (as in Kaldi)."""
    total = singular.double().square().cumsum(0)
    return min(int((total < energy * total[-1]).sum()) + 1, len(singular))


def unfold(weight: Tensor, unfolding: str) -> Tensor:
    """(out, in, taps) -> (out, in x taps) for `input`, (out x taps, in) for `output`; a matrix stays what it is."""
    if weight.dim() == 2 or unfolding == "input":
        return weight.flatten(1)
    return weight.transpose(1, 2).flatten(0, 1)


def sides(shape: Sequence[int], unfolding: str) -> tuple[int, int]:
    """(m, n) of the unfolded matrix."""
    out, inputs, taps = (*shape, 1)[:3]
    return (out, inputs * taps) if unfolding == "input" else (out * taps, inputs)


def size_rank(shape: Sequence[int], unfolding: str, size: float, rank_multiple: int = 1) -> int:
    """The largest rank that stores at most `size` of the dense numbers, a multiple where it reaches one."""
    m, n = sides(shape, unfolding)
    rank = min(int(size * m * n / (m + n) + 1e-9), m, n)
    if rank < 1:
        raise CannotShrink(f"structure svd of a weight {tuple(shape)} cannot reach size {size:g}; "
                           f"the smallest is {(m + n) / (m * n):.2g}, at rank 1")
    return rank - rank % rank_multiple if rank >= rank_multiple else rank


class Svd(Structure):
    """W = left x right with `rank` columns and rows; pays off below rank m n / (m + n)."""

    name = "svd"

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
    def fit(cls, weight: Tensor, size: float | None = None, seed: int = 0, *, rank: int | None = None,
            energy: float | None = None, unfolding: str = "best", rank_multiple: int = 1, data_aware: bool = False,
            ridge: float = 0.01, moments: Tensor | None = None) -> "Svd":
        """One of `size`, `rank` and `energy` says how much is kept; a rank from size or energy is a `rank_multiple`.

        `data_aware` needs the `moments` of the inputs, (in x taps)^2, as `compression.calibration` collects them;
        `ridge` is added to their diagonal, relative to its mean.
        """
        if sum(given is not None for given in (size, rank, energy)) != 1:
            raise UserError("structure svd needs exactly one of size, rank and energy "
                            "(with a budget that shares out a size, leave rank and energy away)")
        _check(rank, energy, rank_multiple)
        inputs = _data_aware.checked_moments(data_aware, moments, ridge, weight.shape)
        tries = []
        for way in _ways(weight.shape, unfolding, size):
            r = full = min(sides(weight.shape, way))
            if rank is not None:
                r = rank
            elif size is not None:
                r = size_rank(weight.shape, way, size, rank_multiple)
            elif energy is not None:
                r = math.ceil(energy_rank(spectrum(weight, way, inputs).sqrt(), energy) / rank_multiple) * rank_multiple
            tries.append(cls._from_factors(weight, way, *truncated(weight, way, min(r, full), inputs)))
        if energy is not None:
            return min(tries, key=lambda layer: layer.num_parameters())
        return min(tries, key=lambda layer: (layer.num_parameters() >= weight.numel(), _lost(layer, weight, inputs)))

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
    def init(cls, shape: Sequence[int], size: float | None = None, seed: int = 0, *, rank: int | None = None,
             unfolding: str = "best", rank_multiple: int = 1) -> "Svd":
        """Normal factors of equal Frobenius norm whose product has the variance of a dense start.

        Without a weight to compare, `best` is the unfolding that gives the larger rank.
        """
        if (size is None) == (rank is None):
            raise UserError("structure svd from scratch needs exactly one of size and rank")
        _check(rank, None, rank_multiple)
        way = _ways(shape, unfolding)[0]
        layer = cls(shape, rank or size_rank(shape, way, size or 1.0, rank_multiple), way)
        draw([layer.left, layer.right], dense_std(shape) ** 2 / layer.rank, seed)
        return layer

    @classmethod
    def min_parameters(cls, shape: Sequence[int], *, unfolding: str = "best", **unused: Any) -> int:
        return min(sum(sides(shape, way)) for way in _ways(shape, unfolding))

    @classmethod
    @torch.no_grad()
    def rate_distortion(cls, weight: Tensor, size: float, *, unfolding: str = "best", rank_multiple: int = 1, data_aware: bool = False,
              ridge: float = 0.01, moments: Tensor | None = None, **unused: Any) -> RateDistortion:
        """One step is `rank_multiple` ranks and removes their energy; it ends where dense is smaller."""
        _check(None, None, rank_multiple)
        inputs = _data_aware.checked_moments(data_aware, moments, ridge, weight.shape)
        tries = []
        for way in _ways(weight.shape, unfolding):
            m, n = sides(weight.shape, way)
            squares = spectrum(weight, way, inputs)
            steps = (m * n - 1) // ((m + n) * rank_multiple)
            gains = squares[: steps * rank_multiple].unflatten(0, (steps, rank_multiple)).sum(1) if steps else squares[:0]
            near = max(1, int(size * m * n / (m + n)))
            lost = float(squares[near:].sum())
            if inputs is not None:  # the spectra of two unfoldings do not compare
                lost = _lost(cls.fit(weight, rank=min(near, m, n), unfolding=way, data_aware=True, ridge=ridge,
                                     moments=moments), weight, inputs)
            tries.append((lost, way, gains, (m + n) * rank_multiple, float(squares.sum())))
        _, way, gains, cost, total = min(tries, key=lambda one: one[0])
        return RateDistortion(gains, cost, total, lambda n: {"rank": n * rank_multiple, "unfolding": way})

    @classmethod
    def error_bounds(cls, weight: Tensor, *, unfolding: str = "best", rank_multiple: int = 1, data_aware: bool = False,
               ridge: float = 0.01, moments: Tensor | None = None, **unused: Any) -> list[Candidate]:
        """s_(r+1) / s_1 at rank 1 and at every multiple, of each unfolding relative to its own s_1."""
        _check(None, None, rank_multiple)
        inputs = _data_aware.checked_moments(data_aware, moments, ridge, weight.shape)
        found = []
        for way in _ways(weight.shape, unfolding):
            singular = spectrum(weight, way, inputs).sqrt()
            errors = (singular / singular[0].clamp_min(1e-150)).tolist() + [0.0]
            found += [Candidate(r * sum(sides(weight.shape, way)), errors[r], {"rank": r, "unfolding": way})
                      for r in range(1, len(errors)) if r == 1 or r % rank_multiple == 0]
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
        self.left.mul_(scale.view(-1, *[1] * (self.left.dim() - 1)))
        return True


def _lost(layer: Svd, weight: Tensor, moments: Tensor | None) -> float:
    """The squared error of a layer's weight, or of its outputs where the moments of the inputs are given."""
    error = layer.dense().detach() - weight
    return float(error.norm()) ** 2 if moments is None else _data_aware.output_energy(error, moments)


def _check(rank: int | None, energy: float | None, rank_multiple: int) -> None:
    if (rank is not None and rank < 1) or (energy is not None and not 0 < energy <= 1) or rank_multiple < 1:
        raise UserError("svd: rank and rank_multiple are at least 1, energy is above 0 and at most 1")


def _ways(shape: Sequence[int], unfolding: str, size: float | None = None) -> list[str]:
    """The unfoldings to try: of `best`, those that reach the size, or the one that comes nearest to it."""
    if unfolding not in ("input", "output", "best"):
        raise UserError(f"svd: unfolding is input, output or best, not '{unfolding}'")
    if len(shape) == 2 or shape[2] == 1:
        return ["input"]
    if unfolding != "best":
        return [unfolding]
    ways = sorted(("input", "output"), key=lambda way: sum(sides(shape, way)))
    return [way for way in ways if size is None or sum(sides(shape, way)) <= size * math.prod(shape) + 1e-9] or ways[:1]
