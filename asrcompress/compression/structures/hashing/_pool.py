"""The pool of structure multi_hash: the entries of a product of two factors, in the order that `way` says."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from asrcompress.compression.structures.fitting import truncated_svd

Sides = tuple[int, int, int, int]  # (a, b, c, d): left is (a b, rank), right (rank, c d)


def sides(entries: int, way: str, columns: int) -> Sides:
    """How a pool of at least this many entries and about this many columns is laid out."""
    rows = -(-entries // columns)
    b, c = (math.isqrt(rows), math.isqrt(columns)) if way == "kronecker" else (1, 1)
    return -(-rows // b), b, c, -(-columns // c)


def square(entries: int, way: str) -> Sides:
    """The layout of the pool that needs the fewest parameters for one rank."""
    return sides(entries, way, math.isqrt(entries - 1) + 1)


def cost(layout: Sides) -> int:
    """The parameters of one rank."""
    a, b, c, d = layout
    return a * b + c * d


def layout_and_rank(entries: int, allowed: int, way: str = "basic", rank: int | None = None) -> tuple[Sides, int]:
    """Those of a pool with this many entries that stores at most `allowed` parameters, or rank 1 if that is more.

    P is square, which gives the largest rank, and then as much wider as `allowed` lets it be; a smaller `rank` that is
    asked for leaves more for that.
    """
    layout = a, b, c, d = square(entries, way)
    rank = max(1, min(rank or allowed, allowed // cost(layout), a * b, c * d))
    half = allowed / rank / 2  # of m + n = allowed / rank, with m n = entries
    widest = min(half + math.sqrt(max(0.0, half * half - entries)), entries // rank)
    for columns in range(int(widest), c * d, -1):
        wider = sides(entries, way, columns)
        if rank * cost(wider) <= allowed and rank <= wider[0] * wider[1]:
            return wider, rank
    return layout, rank


class Pool(nn.Module):
    """The entries from which all layers take their weights."""

    def __init__(self, entries: int, layout: Sequence[int], rank: int) -> None:
        super().__init__()
        a, b, c, d = self.layout = tuple(int(n) for n in layout)
        self.entries, self.rank = entries, rank
        if min(a, b, c, d, rank, entries) < 1 or entries > a * b * c * d:
            raise ValueError(f"a pool {self.layout} of rank {rank} does not hold {entries} weights")
        self.left = nn.Parameter(torch.zeros(a * b, rank))
        self.right = nn.Parameter(torch.zeros(rank, c * d))

    def num_parameters(self) -> int:
        """What the pool stores."""
        return self.left.numel() + self.right.numel()

    def entries_between(self, start: int, stop: int, scale: Tensor | None = None) -> Tensor:
        """(stop - start,): these entries, times `scale` (1,); only the rows of P in which they are get formed."""
        a, b, c, d = self.layout
        step = b * c * d
        first, last = start // step, -(-stop // step)
        rows = self.left[first * b : last * b]
        product = (rows if scale is None else rows * scale) @ self.right  # the factor is smaller than the product
        flat = product.view(-1, b, c, d).transpose(1, 2).flatten()
        return flat[start - first * step : stop - first * step]

    @torch.no_grad()
    def nearest(self, weights: Tensor) -> None:
        """Become the pool whose first entries are nearest to `weights` (entries,); those behind count as zeros."""
        a, b, c, d = self.layout
        grid = functional.pad(weights, (0, a * b * c * d - len(weights))).view(a, c, b, d)
        left, right = truncated_svd(grid.transpose(1, 2).reshape(a * b, c * d), self.rank)
        self.left.copy_(left)
        self.right.copy_(right)

    @torch.no_grad()
    def draw(self, seed: int) -> None:
        """Normal factors; the entries have variance 1."""
        generator = torch.Generator().manual_seed(seed)
        for factor in (self.left, self.right):
            factor.normal_(0, self.rank**-0.25, generator=generator)
