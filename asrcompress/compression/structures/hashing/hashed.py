"""hashed: every weight is one value of a small pool, which a hash of its position picks, with a sign from another.

    W_ij = sign(i, j) x pool[hash(i, j)]

Nothing but the pool is stored. With the balanced hash all values of the pool serve equally many weights, give or take
one, and in large pools only weights of the same rows; with the plain one of the paper a fraction exp(-1 / size) serves
none. Both multiply the rebuilt weight: they save storage, not time. Weights that share a value add up its gradient, so
plain SGD may need a rate lower by sqrt(size).
A trained weight keeps only the fraction `size` of its energy, whatever the hash: this family is for training from
scratch or with a teacher.

Chen, Wilson, Tyree, Weinberger and Chen, "Compressing neural networks with the hashing trick", ICML 2015.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from asrcompress.compression.structures.base import CannotShrink, Structure, dense_std
from asrcompress.compression.structures.hashing._buckets import bucket_means, hashed_values
from asrcompress.compression.structures.tables import HASH, balanced_table, check_hash, hash_indices, hash_signs
from asrcompress.errors import UserError

PIECE = 2**18  # values of a pool that entries share at random: 1 MB in float32, which a core's cache holds


@dataclass(frozen=True)
class HashedOptions:
    """How weights find their value; the size is always a budget's, or that of the call."""

    balanced: bool = True  # every value of the pool serves equally many weights; False: the paper's independent hash
    sign: bool = True  # a second hash gives every weight a sign


def pool_size(name: str, shape: Sequence[int], size: float | None, smallest: int = 1) -> int:
    """How many values `size` allows a pool to have: at most one per weight.

    Errors: UserError without a size; CannotShrink below `smallest`.
    """
    count = math.prod(shape)
    if size is None:
        raise UserError(f"structure {name} needs a size, the fraction of the dense weight's parameters to store")
    values = min(int(size * count + 1e-9), count)
    if values < smallest:
        raise CannotShrink(f"structure {name} of a weight {tuple(shape)} cannot reach size {size:g}; "
                           f"the smallest is {smallest / count:.2g}, with {smallest} parameters")
    return values


def balanced_indices(seed: int, count: int, buckets: int, piece: int = PIECE) -> Tensor:
    """`hash_indices`, balanced, with consecutive entries sharing at most `piece` consecutive buckets: (count,) int64.

    As cache misses are what a look-up costs, this makes large pools two to three times as fast.
    """
    least, more = divmod(count, buckets)  # every bucket's load, and how many buckets have one more
    pieces = -(-buckets // piece)
    starts = [buckets * i // pieces for i in range(pieces + 1)]
    tables = []
    for i, (start, end) in enumerate(itertools.pairwise(starts)):
        entries = least * (end - start) + min(more, end) - min(more, start)
        tables.append(start + balanced_table(seed + (i << 32), entries, end - start))
    return torch.as_tensor(np.concatenate(tables))


class Hashed(Structure):
    """A weight from a pool of `buckets` values, at the places and with the signs that `seed` gives."""

    name = "hashed"
    Options = HashedOptions
    from_tables = True
    indices: Tensor
    signs: Tensor | None

    def __init__(self, shape: Sequence[int], buckets: int, seed: int = 0, balanced: bool = True,
                 sign: bool = True, hash: str = HASH) -> None:
        super().__init__(shape)
        check_hash(hash)
        count = math.prod(self.shape)
        if not 1 <= buckets <= count:
            raise UserError(f"hashed of {self.shape} has no pool of {buckets} values; it has 1 to {count}")
        self.buckets, self.seed, self.balanced, self.sign = buckets, seed, balanced, sign
        self.pool = nn.Parameter(torch.zeros(buckets))
        indices = balanced_indices(seed, count, buckets) if balanced else hash_indices(seed, count, buckets, False)
        self.register_buffer("indices", indices, persistent=False)
        self.register_buffer("signs", hash_signs(seed, count) if sign else None, persistent=False)

    @classmethod
    @torch.no_grad()
    def fit(cls, weight: Tensor, options: HashedOptions, size: float | None = None, seed: int = 0) -> "Hashed":
        """Least squares: the mean of the signed weights of each bucket. Errors: those of `pool_size`."""
        buckets = pool_size(cls.name, weight.shape, size)
        layer = cls(weight.shape, buckets, seed, options.balanced, options.sign).to(weight)
        layer.pool.copy_(bucket_means(weight.flatten(), layer.indices, layer.signs, buckets))
        return layer

    @classmethod
    def init(cls, shape: Sequence[int], options: HashedOptions, size: float | None = None, seed: int = 0) -> "Hashed":
        """A pool from the uniform distribution of a dense start, as in the paper. Errors: those of `pool_size`."""
        layer = cls(shape, pool_size(cls.name, shape, size), seed, options.balanced, options.sign)
        uniform_start(layer.pool, shape, seed)
        return layer

    @classmethod
    def min_parameters(cls, shape: Sequence[int], options: HashedOptions) -> int:
        return 1

    def spec(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "buckets": self.buckets, "seed": self.seed, "balanced": self.balanced,
                "sign": self.sign, "hash": HASH}

    def dense(self) -> Tensor:
        return hashed_values(self.pool, self.indices, self.signs).view(self.shape)


def uniform_start(pool: Tensor, shape: Sequence[int], seed: int) -> None:
    """Fill a pool with values of mean 0 and the standard deviation `dense_std(shape)`."""
    bound = math.sqrt(3) * dense_std(shape)
    with torch.no_grad():
        pool.uniform_(-bound, bound, generator=torch.Generator().manual_seed(seed))
