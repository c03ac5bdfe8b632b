"""multi_hash: one pool for the whole network: every weight is an entry of a product of two factors that layers share.

P = left x right, (m, r) by (r, n), has at least as many entries as all layers together. `basic`: the weights are the
entries of P row by row, each layer a slice behind the one before. `kronecker`: likewise of K, the sum over r of
kron(left_r, right_r), where column r of left is laid out as (a, b) and row r of right as (c, d), a b = m and c d = n;
K[(i, k), (j, l)] = P[(i, j), (k, l)], so it is another order of the same entries. Each layer has one learned scale, for
its weight alone. Since the order is one-to-one, the best pool for trained weights is a truncated SVD.

A training step forms the rows that hold the layer: r multiply-adds for each of its weights forward, and twice that
backward. The layer itself takes B for a batch of B frames, so it gets longer by about r / B; at inference by nothing.

Eban, Movshovitz-Attias, Wu, Sandler, Poon, Idelbayev and Carreira-Perpinan, "Structured multi-hashing for model
compression", 2019.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from asrcompress.compression.structures.base import CannotShrink, Structure, dense_std
from asrcompress.compression.structures.low_rank.svd import truncated_svd
from asrcompress.errors import UserError

Sides = tuple[int, int, int, int]  # (a, b, c, d): left is (a b, rank), right (rank, c d)


def sides(entries: int, way: str, columns: int) -> Sides:
    """How a pool of at least this many entries and about this many columns is laid out."""
    rows = -(-entries // columns)
    b, c = (math.isqrt(rows), math.isqrt(columns)) if way == "kronecker" else (1, 1)
    return -(-rows // b), b, c, -(-columns // c)


def square(entries: int, way: str) -> Sides:
    """The layout of the pool that needs the fewest numbers for one rank."""
    return sides(entries, way, math.isqrt(entries - 1) + 1)


def cost(layout: Sides) -> int:
    """Numbers that one rank takes."""
    a, b, c, d = layout
    return a * b + c * d


def allotment(entries: int, numbers: int, way: str = "basic", rank: int | None = None) -> tuple[Sides, int]:
    """The layout and rank of a pool with this many entries that stores at most `numbers`, or rank 1 if that is more.

    P is square, which gives the largest rank, and then as much wider as `numbers` allow; a smaller `rank` that is asked
    for leaves more for that.
    """
    layout = a, b, c, d = square(entries, way)
    rank = max(1, min(rank or numbers, numbers // cost(layout), a * b, c * d))
    half = numbers / rank / 2  # of m + n = numbers / rank, with m n = entries
    widest = min(half + math.sqrt(max(0.0, half * half - entries)), entries // rank)
    for columns in range(int(widest), c * d, -1):
        wider = sides(entries, way, columns)
        if rank * cost(wider) <= numbers and rank <= wider[0] * wider[1]:
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


class MultiHash(Structure):
    """A layer's slice of a pool, times a learned scale: one number, or one a row once BatchNorm is folded into it.

    `numbers()` is the layer's share of the pool, by its weights, so that the layers of a pool add up to what is stored.
    """

    name = "multi_hash"
    pool: Pool

    def __init__(self, shape: Sequence[int], layout: Sequence[int], rank: int, entries: int, start: int = 0,
                 scales: int = 1) -> None:
        super().__init__(shape)
        self.rank, self.start, self.stop = rank, start, start + math.prod(self.shape)
        if not 0 <= start < self.stop <= entries or scales not in (1, self.shape[0]):
            raise ValueError(f"a weight {self.shape} from {start} on is not in a pool of {entries}")
        self.pool = Pool(entries, layout, rank)
        self.scale = nn.Parameter(torch.ones(scales))

    @classmethod
    def fit(cls, weight: Tensor, size: float | None = None, seed: int = 0, *, way: str = "basic",
            rank: int | None = None) -> "MultiHash":
        """A pool of its own. `rank` alone says how large; beside a size it is the largest that is wanted."""
        return _fitted({"": weight}, _together({"": weight.shape}, {"": {"size": size, "way": way, "rank": rank}}))[""]

    @classmethod
    def fit_all(cls, weights: Mapping[str, Tensor], shares: Mapping[str, Mapping[str, Any]],
                seed: int = 0) -> dict[str, Structure]:
        """One pool for all layers; each weight counts relative to its root mean square. Tiny layers may be left out."""
        if len({(weight.dtype, weight.device) for weight in weights.values()}) > 1:
            raise UserError("structure multi_hash has one pool for all layers, and the selected ones differ in dtype "
                            "or device; include only those that agree")
        layers = _paying({path: weight.shape for path, weight in weights.items()}, shares)
        return dict(_fitted({path: weights[path] for path in layers}, layers))

    @classmethod
    def init(cls, shape: Sequence[int], size: float | None = None, seed: int = 0, *, way: str = "basic",
             rank: int | None = None) -> "MultiHash":
        return _drawn(_together({"": shape}, {"": {"size": size, "way": way, "rank": rank}}), seed)[""]

    @classmethod
    def init_all(cls, shapes: Mapping[str, Sequence[int]], shares: Mapping[str, Mapping[str, Any]],
                 seed: int = 0) -> dict[str, Structure]:
        return dict(_drawn(_paying(shapes, shares), seed))

    @classmethod
    def min_parameters(cls, shape: Sequence[int], *, way: str = "basic", rank: int | None = None) -> int:
        """Of a pool of its own; layers that share one get below."""
        _check(way, rank)
        return cost(allotment(math.prod(shape), 0, way)[0]) + 1

    def shared(self) -> Pool:
        return self.pool

    def share(self, numbers: nn.Module) -> None:
        """Take its slice of another layer's pool. UserError where that has another layout."""
        ours = (self.pool.layout, self.pool.rank, self.pool.entries)
        if not isinstance(numbers, Pool) or ours != (numbers.layout, numbers.rank, numbers.entries):
            raise UserError("layers of structure multi_hash that share a pool differ in how they describe it")
        self.pool = numbers

    def spec(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "layout": list(self.pool.layout), "rank": self.rank,
                "entries": self.pool.entries, "start": self.start, "scales": self.scale.numel()}

    def dense(self) -> Tensor:
        if self.scale.numel() == 1:
            return self.pool.entries_between(self.start, self.stop, self.scale).view(self.shape)
        weight = self.pool.entries_between(self.start, self.stop).view(self.shape)
        return weight * self.scale.view(-1, *[1] * (len(self.shape) - 1))

    def num_parameters(self) -> int:
        before, after = (self.pool.num_parameters() * end // self.pool.entries for end in (self.start, self.stop))
        return after - before + self.scale.numel()

    @torch.no_grad()
    def scale_rows(self, scale: Tensor) -> bool:
        self.scale = nn.Parameter((self.scale * scale).to(self.scale.dtype))
        return True


def _check(way: str, rank: int | None) -> None:
    if way not in ("basic", "kronecker") or (rank is not None and rank < 1):
        raise UserError(f"multi_hash: way is basic or kronecker, not '{way}', and a rank is at least 1, not {rank}")


def _together(shapes: Mapping[str, Sequence[int]], shares: Mapping[str, Mapping[str, Any]]) -> dict[str, MultiHash]:
    """New layers, one behind the other in one pool; all together store what `shares` allow them, scales included."""
    options = {key: value for key, value in next(iter(shares.values())).items() if key != "size"}
    way, rank = options.get("way", "basic"), options.get("rank")
    _check(way, rank)
    entries = sum(map(math.prod, shapes.values()))
    sizes = [size for path in shapes if (size := shares[path].get("size")) is not None]
    if len(sizes) == len(shapes):
        parts = (size * math.prod(shape) for size, shape in zip(sizes, shapes.values(), strict=True))
        allowed = int(sum(parts) + 1e-6) - len(shapes)
    elif rank is not None:
        allowed = rank * cost(square(entries, way))
    else:
        raise UserError("structure multi_hash needs a size (budget=uniform shares one out) or a rank")
    layout, rank = allotment(entries, allowed, way, rank)
    if rank * cost(layout) > allowed:
        raise CannotShrink(f"structure multi_hash cannot store {entries:,} weights in {allowed + len(shapes):,} "
                           f"numbers; the smallest size is {(cost(layout) + len(shapes)) / entries:.2g}")
    made: dict[str, MultiHash] = {}
    start = 0
    for path, shape in shapes.items():
        made[path] = MultiHash(shape, layout, rank, entries, start)
        made[path].share(next(iter(made.values())).pool)
        start += math.prod(shape)
    return made


def _paying(shapes: Mapping[str, Sequence[int]], shares: Mapping[str, Mapping[str, Any]]) -> dict[str, MultiHash]:
    """`_together` for those layers whose share of the pool, with the scale, is fewer numbers than they have."""
    if not shapes:
        return {}
    made = _together(shapes, shares)
    paying = {path: shape for path, shape in shapes.items() if made[path].num_parameters() < math.prod(shape)}
    return made if len(paying) == len(made) else _paying(paying, shares)


@torch.no_grad()
def _fitted(weights: Mapping[str, Tensor], layers: dict[str, MultiHash]) -> dict[str, MultiHash]:
    """The layers, with the pool nearest to their weights over their scales, and then the best scale of each."""
    if not layers:
        return layers
    exact = {path: weight.flatten().to(torch.promote_types(weight.dtype, torch.float32))
             for path, weight in weights.items()}
    rms = {path: float(weight.square().mean().sqrt()) or 1.0 for path, weight in exact.items()}
    for path, layer in layers.items():
        layer.to(weights[path])
    pool = next(iter(layers.values())).pool
    pool.nearest(torch.cat([weight / rms[path] for path, weight in exact.items()]))
    for path, layer in layers.items():
        entries = pool.entries_between(layer.start, layer.stop).to(exact[path].dtype)
        layer.scale.fill_(float(entries @ exact[path] / entries.square().sum()) if entries.any() else rms[path])
    return layers


def _drawn(layers: dict[str, MultiHash], seed: int) -> dict[str, MultiHash]:
    for layer in layers.values():
        layer.pool.draw(seed)  # the same each time
        nn.init.constant_(layer.scale, dense_std(layer.shape))
    return layers
