"""ldr: tiles of low displacement rank whose displacement operators are learned.

Convention (Stein): a tile M (m, n) has M - A M B = G H^T with G (m, r) and H (n, r); hence M is a sum of powers, the
Krylov decomposition M = sum_t A^t G H^T B^t = sum_k K(A, g_k) K(B^T, h_k)^T, K(A, v) = [v, A v, A^2 v, ...]. A and B^T
are `subdiagonal` (LDR-SD: one diagonal, below the main one, m - 1 parameters, so that A^m = 0 and both equations are
exact) or `tridiagonal` (LDR-TD, 3 m - 2 parameters), without corners, as in the authors' program. All ones below the
diagonal give the Toeplitz-like matrices, all zeros those of rank r.

Ours: tiles need not be square, so a rectangular weight is a few tiles of nearly the shape of a square; and rows of an
operator whose absolute values sum to more than 1 are scaled down to 1, without which its powers overflow in training.
A tile is rebuilt by doubling, S_2t = S_t + A^t S_t B^t, in log2 n steps: elementwise ones over the tile for
`subdiagonal`, products of n x n matrices for `tridiagonal`, which is therefore slow to train in large tiles. It is then
multiplied: the product without rebuilding, O(n log^2 n) by divide and conquer, is the slower one in practice (that of
torch-structured takes five times as long as the dense product of 2048 x 2048 or more, `benchmarks/structures.py`).

Thomas, Gu, Dao, Rudra and Re, "Learning compressed transforms with low displacement rank", NeurIPS 2018.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from asrcompress.compression.structures.base import CannotShrink, Structure, dense_std, exact
from asrcompress.compression.structures.displacement._tiles import tile, untile
from asrcompress.compression.structures.fitting import descend, normalized
from asrcompress.errors import UserError
from asrcompress.options import require

OPERATORS = ("subdiagonal", "tridiagonal")
DECAY = 0.9  # what random operators start with below the diagonal: near a shift, and away from the bound at 1


@dataclass(frozen=True)
class LdrOptions:
    """Where no budget shares out a size, `rank` says how much is kept."""

    rank: int | None = None  # the displacement rank of every tile
    operator: Literal["subdiagonal", "tridiagonal"] = "subdiagonal"
    block: int | None = None  # the longest side of a tile; None: few tiles, as square as they can be
    steps: int = 60  # of the descent that fits it to a trained weight

    def __post_init__(self) -> None:
        require(self.rank is None or self.rank >= 1, f"ldr: rank is {self.rank}; it is at least 1")
        require(self.block is None or self.block >= 1, f"ldr: block is {self.block}; it is at least 1")
        require(self.steps >= 0, f"ldr: steps is {self.steps}; it is at least 0")


def stein_by_shifts(p: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The solution M of M - A M B = P, (..., m, n), for a (..., m - 1) below A's diagonal, b (..., n - 1) above B's.

    Entry by entry: M[i, j] = P[i, j] + a[i - 1] M[i - 1, j - 1] b[j - 1].
    """
    m = p.clone()
    step = 1
    while step < min(p.shape[-2:]):  # a and b are the products of `step` neighbours: the diagonals of A^step, B^step
        m[..., step:, step:].addcmul_(m[..., :-step, :-step] * a.unsqueeze(-1), b.unsqueeze(-2))
        a, b = (d[..., step:] * d[..., :-step] for d in (a, b))
        step *= 2
    return m


class Stein(torch.autograd.Function):
    """`stein_by_shifts` with the gradient of the equation, which needs M alone and not the steps to it."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, a: Tensor, b: Tensor) -> Tensor:
        m = stein_by_shifts(p, a, b)
        ctx.save_for_backward(m, a, b)
        return m

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Q - A^T Q B^T = gradient, the same equation read from the last row and column, is the gradient of P."""
        m, a, b = ctx.saved_tensors
        q = stein_by_shifts(gradient.flip(-2, -1), a.flip(-1), b.flip(-1)).flip(-2, -1)
        pairs = q[..., 1:, 1:] * m[..., :-1, :-1]
        return q, (pairs @ b.unsqueeze(-1)).squeeze(-1), (a.unsqueeze(-2) @ pairs).squeeze(-2)


def stein_by_squares(p: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The first terms of sum_t A^t P B^t, as many as the longer side and up to a power of two; a, b square matrices."""
    doublings = max(p.shape[-2:]) - 1
    for _ in range(doublings.bit_length()):
        p = p + a @ p @ b
        a, b = a @ a, b @ b
    return p


def contracted(operator: Tensor) -> Tensor:
    """Rows (..., entries) with absolute values that sum to at most 1."""
    return operator / operator.abs().sum(-1, keepdim=True).clamp_min(1)


def tridiagonal(diagonals: Tensor) -> Tensor:
    """(..., 3 m - 2), the diagonals below, on and above the main one, -> (..., m, m)."""
    m = (diagonals.shape[-1] + 2) // 3
    below, on, above = diagonals.split((m - 1, m, m - 1), -1)
    return torch.diag_embed(below, -1) + torch.diag_embed(on) + torch.diag_embed(above, 1)


class Ldr(Structure):
    """A grid of tiles (height, width), each of its own operators and of displacement rank `rank`."""

    name = "ldr"
    Options = LdrOptions

    def __init__(self, shape: Sequence[int], rank: int, operator: str = "subdiagonal",
                 block: int | None = None) -> None:
        super().__init__(shape)
        height, width, tiles = grid(shape, operator, block)
        if not 1 <= rank <= min(height, width):
            raise UserError(f"ldr of {self.shape} has no rank {rank}; it is from 1 to the smaller side of a tile, "
                            f"which is {min(height, width)}")
        self.rank, self.operator, self.block, self.height, self.width = rank, operator, block, height, width
        rows = -(-self.shape[0] // height)
        self.left = nn.Parameter(torch.zeros(rows, tiles // rows, height, rank))
        self.right = nn.Parameter(torch.zeros(rows, tiles // rows, width, rank))
        self.down = nn.Parameter(torch.zeros(rows, tiles // rows, operator_parameters(operator, height)))
        self.across = nn.Parameter(torch.zeros(rows, tiles // rows, operator_parameters(operator, width)))

    @classmethod
    @torch.no_grad()
    def fit(cls, weight: Tensor, options: LdrOptions, size: float | None = None, seed: int = 0) -> "Ldr":
        """The best matrix of the rank, then `steps` of descent on all parameters.

        A tridiagonal fit goes on from a subdiagonal one for a tenth of the steps, each of which takes far longer.
        Errors: those of `size_rank`.
        """
        target, scale = normalized(weight)
        layer, steps = cls._sized(weight.shape, options, size).to(target), options.steps
        if options.operator == "tridiagonal":
            layer._take(cls.fit(target, replace(options, rank=layer.rank, operator="subdiagonal"), seed=seed))
            steps //= 10
        else:
            layer._truncate(target, seed)
        descend(layer, target, steps)
        for factor in (layer.left, layer.right):
            factor.mul_(math.sqrt(scale))
        return layer.to(weight)

    def _truncate(self, target: Tensor, seed: int) -> None:
        """Become the best tiles of the rank, with small random operators: at zero they would have no gradient."""
        u, s, vh = torch.linalg.svd(tile(target, self.height, self.width), full_matrices=False)
        roots = s[..., None, : self.rank].sqrt()
        self.left.copy_(u[..., : self.rank] * roots)
        self.right.copy_(vh.mT[..., : self.rank] * roots)
        generator = torch.Generator().manual_seed(seed)
        for operator in (self.down, self.across):
            operator.copy_(torch.empty(operator.shape).uniform_(-0.1, 0.1, generator=generator))

    def _take(self, simple: "Ldr") -> None:
        """Become the same as one with subdiagonal operators."""
        self.left.copy_(simple.left)
        self.right.copy_(simple.right)
        self.down[..., : self.height - 1] = simple.down
        self.across[..., : self.width - 1] = simple.across

    @classmethod
    @torch.no_grad()
    def init(cls, shape: Sequence[int], options: LdrOptions, size: float | None = None, seed: int = 0) -> "Ldr":
        """Normal G and H; decaying shifts as operators, to which `tridiagonal` adds zeros. Errors: as `fit`."""
        layer = cls._sized(shape, options, size)
        layer.down[..., : layer.height - 1] = layer.across[..., : layer.width - 1] = DECAY
        squares = [torch.full((side - 1,), DECAY**2) for side in (layer.height, layer.width)]
        terms = float(stein_by_shifts(torch.ones(layer.height, layer.width), *squares).mean())
        spread = dense_std(shape) / math.sqrt(layer.rank * terms)
        generator = torch.Generator().manual_seed(seed)
        for factor in (layer.left, layer.right):
            factor.normal_(0, math.sqrt(spread), generator=generator)
        return layer

    @classmethod
    def _sized(cls, shape: Sequence[int], options: LdrOptions, size: float | None) -> "Ldr":
        rank = size_rank(shape, size, options.rank, options.operator, options.block)
        return cls(shape, rank, options.operator, options.block)

    @classmethod
    def min_parameters(cls, shape: Sequence[int], options: LdrOptions) -> int:
        return count(shape, 1, options.operator, options.block)

    def spec(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "rank": self.rank, "operator": self.operator, "block": self.block}

    def dense(self) -> Tensor:
        left, right, down, across = (exact(p) for p in (self.left, self.right, self.down, self.across))
        with torch.autocast(left.device.type, enabled=False):
            p = left @ right.mT
            if self.operator == "subdiagonal":
                tiles = Stein.apply(p, *(contracted(d.unsqueeze(-1)).squeeze(-1) for d in (down, across)))
            else:
                a, b = (contracted(tridiagonal(d)) for d in (down, across))
                tiles = stein_by_squares(p, a, b.mT)
        return untile(tiles, self.shape).to(self.left.dtype)


def grid(shape: Sequence[int], operator: str, block: int | None) -> tuple[int, int, int]:
    """(height, width, number) of the tiles: as square as few tiles can be, or of sides of at most `block`.

    Errors: UserError for another operator or a block below 1.
    """
    if operator not in OPERATORS or (block is not None and block < 1):
        raise UserError(f"ldr: operator is {' or '.join(OPERATORS)}, not '{operator}'; block is at least 1")
    out, inputs, taps = (*shape, 1)[:3]
    if block is None:
        rows, columns = max(1, round(out / inputs)), max(1, round(inputs / out))
    else:
        rows, columns = math.ceil(out / block), math.ceil(inputs / block)
    height, width = math.ceil(out / rows), math.ceil(inputs / columns)
    return height, width, math.ceil(out / height) * math.ceil(inputs / width) * taps


def operator_parameters(operator: str, side: int) -> int:
    """The parameters of an operator of side x side."""
    return side - 1 if operator == "subdiagonal" else 3 * side - 2


def count(shape: Sequence[int], rank: int, operator: str, block: int | None) -> int:
    """The parameters of a member."""
    height, width, tiles = grid(shape, operator, block)
    operators = operator_parameters(operator, height) + operator_parameters(operator, width)
    return tiles * (rank * (height + width) + operators)


def size_rank(shape: Sequence[int], size: float | None, rank: int | None, operator: str, block: int | None) -> int:
    """The rank that was given, or the largest with at most `size` of the dense parameters.

    Errors: CannotShrink; UserError unless exactly one of size and rank is given.
    """
    if (size is None) == (rank is None):
        raise UserError("structure ldr needs exactly one of size and rank "
                        "(with a budget that shares out a size, leave rank away)")
    if size is None or rank is not None:
        return rank or 0
    total, fewest = math.prod(shape), count(shape, 1, operator, block)
    each = count(shape, 2, operator, block) - fewest
    if fewest > size * total + 1e-9:
        raise CannotShrink(f"structure ldr of a weight {tuple(shape)} with {operator} operators cannot reach size "
                           f"{size:g}; the smallest is {fewest / total:.2g}, at rank 1")
    return min(1 + int((size * total + 1e-9 - fewest) / each), *grid(shape, operator, block)[:2])
