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
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from asrcompress.compression.structures.base import Allotment, CannotShrink, Structure, dense_std, exact, per_row
from asrcompress.compression.structures.fitting import in_range
from asrcompress.compression.structures.hashing._pool import Pool, cost, layout_and_rank, square
from asrcompress.compression.structures.pool import PooledStructure
from asrcompress.errors import UserError
from asrcompress.options import require


@dataclass(frozen=True)
class MultiHashOptions:
    """Where no budget shares out a size, `rank` says how large the pool is."""

    way: Literal["basic", "kronecker"] = "basic"  # the order of the entries: row by row, or of Kronecker products
    rank: int | None = None  # with a size the most that is wanted: a smaller one makes the pool wider instead

    def __post_init__(self) -> None:
        require(self.rank is None or self.rank >= 1, f"multi_hash: rank is {self.rank}; it is at least 1")


class MultiHash(PooledStructure):
    """A layer's slice of a pool, times a learned scale: one value, or one a row once BatchNorm is folded into it.

    `num_parameters()` is the layer's part of the pool, by its weights, so that the layers of a pool add up to what is
    stored.
    """

    name = "multi_hash"
    Options = MultiHashOptions
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
    def fit(cls, weight: Tensor, options: MultiHashOptions, size: float | None = None, seed: int = 0) -> "MultiHash":
        """A pool of its own. Errors: CannotShrink; UserError where neither a size nor a rank is given."""
        return _fitted({"": weight}, _together({"": weight.shape}, {"": Allotment(size, options)}))[""]

    @classmethod
    def fit_all(cls, weights: Mapping[str, Tensor], allotments: Mapping[str, Allotment],
                seed: int = 0) -> dict[str, Structure]:
        """One pool for all layers; each weight counts relative to its root mean square. Tiny layers may be left out.

        Errors: those of `fit`, and UserError where the weights differ in dtype or device.
        """
        if len({(weight.dtype, weight.device) for weight in weights.values()}) > 1:
            raise UserError("structure multi_hash has one pool for all layers, and the selected ones differ in dtype "
                            "or device; include only those that agree")
        layers = _paying({path: weight.shape for path, weight in weights.items()}, allotments)
        return dict(_fitted({path: weights[path] for path in layers}, layers))

    @classmethod
    def init(cls, shape: Sequence[int], options: MultiHashOptions, size: float | None = None,
             seed: int = 0) -> "MultiHash":
        """A random pool of its own. Errors: as `fit`."""
        return _drawn(_together({"": shape}, {"": Allotment(size, options)}), seed)[""]

    @classmethod
    def init_all(cls, shapes: Mapping[str, Sequence[int]], allotments: Mapping[str, Allotment],
                 seed: int = 0) -> dict[str, Structure]:
        """One random pool for all layers. Errors: those of `fit`."""
        return dict(_drawn(_paying(shapes, allotments), seed))

    @classmethod
    def min_parameters(cls, shape: Sequence[int], options: MultiHashOptions) -> int:
        """Of a pool of its own; layers that share one get below."""
        return cost(layout_and_rank(math.prod(shape), 0, options.way)[0]) + 1

    def tied_pool(self) -> Pool:
        return self.pool

    def tie_pool(self, pool: nn.Module) -> None:
        ours = (self.pool.layout, self.pool.rank, self.pool.entries)
        if not isinstance(pool, Pool) or ours != (pool.layout, pool.rank, pool.entries):
            raise UserError("layers of structure multi_hash that share a pool differ in how they describe it")
        self.pool = pool

    def spec(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "layout": list(self.pool.layout), "rank": self.rank,
                "entries": self.pool.entries, "start": self.start, "scales": self.scale.numel()}

    def dense(self) -> Tensor:
        if self.scale.numel() == 1:
            return self.pool.entries_between(self.start, self.stop, self.scale).view(self.shape)
        weight = self.pool.entries_between(self.start, self.stop).view(self.shape)
        return weight * per_row(self.scale, len(self.shape))

    def num_parameters(self) -> int:
        before, after = (self.pool.num_parameters() * end // self.pool.entries for end in (self.start, self.stop))
        return after - before + self.scale.numel()

    @torch.no_grad()
    def scale_rows(self, scale: Tensor) -> bool:
        self.scale = nn.Parameter((self.scale * scale).to(self.scale.dtype))
        return True


def _together(shapes: Mapping[str, Sequence[int]], allotments: Mapping[str, Allotment]) -> dict[str, MultiHash]:
    """New layers, one behind the other in one pool; all together store what their sizes allow them, scales included.

    The options are those of the first allotment.
    """
    way, rank = (options := next(iter(allotments.values())).options).way, options.rank
    entries = sum(map(math.prod, shapes.values()))
    sizes = [size for path in shapes if (size := allotments[path].size) is not None]
    if len(sizes) == len(shapes):
        parts = (size * math.prod(shape) for size, shape in zip(sizes, shapes.values(), strict=True))
        allowed = int(sum(parts) + 1e-6) - len(shapes)
    elif rank is not None:
        allowed = rank * cost(square(entries, way))
    else:
        raise UserError("structure multi_hash needs a size (budget=uniform shares one out) or a rank")
    layout, rank = layout_and_rank(entries, allowed, way, rank)
    if rank * cost(layout) > allowed:
        raise CannotShrink(f"structure multi_hash cannot store {entries:,} weights in {allowed + len(shapes):,} "
                           f"parameters; the smallest size is {(cost(layout) + len(shapes)) / entries:.2g}")
    made: dict[str, MultiHash] = {}
    start = 0
    for path, shape in shapes.items():
        made[path] = MultiHash(shape, layout, rank, entries, start)
        made[path].tie_pool(next(iter(made.values())).pool)
        start += math.prod(shape)
    return made


def _paying(shapes: Mapping[str, Sequence[int]], allotments: Mapping[str, Allotment]) -> dict[str, MultiHash]:
    """`_together` for those layers whose part of the pool, with the scale, is fewer parameters than they have."""
    if not shapes:
        return {}
    made = _together(shapes, allotments)
    paying = {path: shape for path, shape in shapes.items() if made[path].num_parameters() < math.prod(shape)}
    return made if len(paying) == len(made) else _paying(paying, allotments)


@torch.no_grad()
def _fitted(weights: Mapping[str, Tensor], layers: dict[str, MultiHash]) -> dict[str, MultiHash]:
    """The layers, with the pool nearest to their weights over their scales, and then the best scale of each."""
    if not layers:
        return layers
    flat = {path: exact(weight).flatten() for path, weight in weights.items()}
    rms = {}
    for path, weight in flat.items():
        target, power = in_range(weight)
        rms[path] = power * float(target.square().mean().sqrt()) or 1.0
    for path, layer in layers.items():
        layer.to(weights[path])
    pool = next(iter(layers.values())).pool
    pool.nearest(torch.cat([weight / rms[path] for path, weight in flat.items()]))
    for path, layer in layers.items():
        entries = pool.entries_between(layer.start, layer.stop).to(flat[path].dtype)
        layer.scale.fill_(float(entries @ flat[path] / entries.square().sum()) if entries.any() else rms[path])
    return layers


def _drawn(layers: dict[str, MultiHash], seed: int) -> dict[str, MultiHash]:
    """The layers with a random pool, and scales that give them the variance of a dense start."""
    for layer in layers.values():
        layer.pool.draw(seed)  # the same each time
        nn.init.constant_(layer.scale, dense_std(layer.shape))
    return layers
