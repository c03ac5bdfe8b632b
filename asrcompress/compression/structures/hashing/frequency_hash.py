"""frequency_hash: FreshNets. The weight's cosine transform is hashed, with more values for its low frequencies.

Each output's weights, inputs x taps, are cut into blocks of `block` inputs and all taps (the last one may be narrower).
A block is the orthonormal 2-D DCT-II of its coefficients. Those of about the same frequency form a band, which has its
own pool: of N coefficients, min(N, t N beta(x)) values at the band's normalised frequency x, where t meets the size.

What a block should be depends on where neighbours are alike. The paper transforms the square filters of images: that
is `block` 1 and `window` [3, 3], which says how the taps of a kernel are laid out. A first layer over stacked frames
has mel bins x frames: `block` 80. `block` 1 alone is a transform over time, for kernels with many taps. Elsewhere
inputs are in no order, the spectrum is flat, and `hashed` does as well. Blocks of inputs, their bands, and the bands of
blocks with unequal sides (by frequency relative to the longest side) are this project's; a square has the paper's.

Chen, Wilson, Tyree, Weinberger and Chen, "Compressing convolutional neural networks in the frequency domain", KDD 2016.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from asrcompress.compression.structures.base import Structure, exact
from asrcompress.compression.structures.hashing._buckets import bucket_means, hashed_values
from asrcompress.compression.structures.hashing.hashed import pool_size, uniform_start
from asrcompress.compression.structures.tables import HASH, check_hash, hash_indices, hash_signs
from asrcompress.errors import UserError
from asrcompress.options import require


@dataclass(frozen=True)
class FrequencyHashOptions:
    """How blocks are cut and what their bands get; the size is always a budget's, or that of the call."""

    block: int = 16  # inputs per block of the cosine transform: 80 for a first layer over mel bins, 1 for time alone
    window: tuple[int, ...] = ()  # how the taps are laid out where they are more than a line of frames: (3, 3)
    alpha: float = 1.0  # with beta, the density by which bands share the pool: 1 and 1 are all alike
    beta: float = 2.0  # larger: more for low frequencies
    balanced: bool = True  # as of structure hashed
    sign: bool = True

    def __post_init__(self) -> None:
        require(min((self.block, *self.window)) >= 1,
                f"frequency_hash: block is {self.block} and window {list(self.window)}; all are at least 1")
        require(0 < self.alpha < math.inf and 0 < self.beta < math.inf,
                f"frequency_hash: alpha and beta are above 0, not {self.alpha:g} and {self.beta:g}")


def dct_matrix(n: int) -> Tensor:
    """The orthonormal DCT-II, (n, n) float64: coefficients = dct_matrix(n) @ values."""
    k, i = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)
    matrix = (2 / n) ** 0.5 * torch.cos(math.pi * (2 * i + 1) * k / (2 * n))
    matrix[0] /= 2**0.5
    return matrix


def block_dct(sides: Sequence[int]) -> Tensor:
    """The DCT over all axes of a block that is flattened, (volume, volume) float64."""
    return functools.reduce(torch.kron, [dct_matrix(n) for n in sides])


def block_bands(sides: Sequence[int], longest: int) -> Tensor:
    """The band of each coefficient of a block, (volume,): its frequencies, relative to the longest side, summed."""
    frequencies = torch.meshgrid(*(torch.arange(n) * longest // n for n in sides), indexing="ij")
    return torch.stack(frequencies).sum(0).flatten()


def weight_bands(shape: Sequence[int], block: int, window: Sequence[int]) -> Tensor:
    """The band of each coefficient of one output, (in x taps,), over blocks of `block` inputs and the `window`."""
    inputs, longest = shape[1], max(block, *window)
    last = [block_bands([inputs % block, *window], longest)] if inputs % block else []
    return torch.cat([block_bands([block, *window], longest).repeat(inputs // block), *last])


def band_pools(counts: Sequence[int], total: int, alpha: float, beta: float) -> list[int]:
    """How many of `total` values each band gets: by the density of the beta distribution, from 1 to its count.

    alpha = beta = 1 gives each band the same fraction of its count; a larger beta favours low frequencies.
    """
    most = np.array(counts, dtype=np.float64)
    x = (np.arange(len(most)) + 0.5) / len(most)
    density = (alpha - 1) * np.log(x) + (beta - 1) * np.log1p(-x)

    def parts(log_t: float) -> Any:
        return np.clip(most * np.exp(np.minimum(log_t + density, 0)), 1, most)

    low, high = float(-(density + np.log(most)).max()), float(-density.min())  # all at the least, all at the most
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if parts(middle).sum() < total else (low, middle)
    pools = np.floor(parts(high)).astype(int)
    for band in np.argsort(pools - parts(high), kind="stable")[: total - pools.sum()]:
        pools[band] += 1
    return [int(pool) for pool in pools]


def change_basis(weight: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """(out, in x taps) -> the same: each row's blocks times a matrix, whole ones the first, a narrower last the second.

    With the matrices of `block_dct` coefficients become weights, with their transposes weights become coefficients.
    """
    out, columns = weight.shape
    whole = columns - columns % len(matrices[0])
    parts = weight.split([whole, columns - whole], 1)
    return torch.cat([(part.reshape(out, -1, len(m)) @ m).view(out, -1)
                      for part, m in zip(parts, matrices, strict=False)], 1)


class FrequencyHash(Structure):
    """A weight from a pool per band of frequencies; `pools` says how many values each has, lowest band first."""

    name = "frequency_hash"
    Options = FrequencyHashOptions
    from_tables = True
    indices: Tensor
    signs: Tensor | None
    dct: Tensor
    last_dct: Tensor

    def __init__(self, shape: Sequence[int], pools: Sequence[int], block: int, window: Sequence[int], seed: int = 0,
                 balanced: bool = True, sign: bool = True, hash: str = HASH) -> None:
        super().__init__(shape)
        check_hash(hash)
        self.block, self.window = layout(self.shape, block, window)
        self.pools, self.seed, self.balanced, self.sign = list(pools), seed, balanced, sign
        self.pool = nn.Parameter(torch.zeros(sum(pools)))
        self.register_buffer("indices", self._table().to(self.pool.device), persistent=False)
        self.register_buffer("signs", hash_signs(seed, math.prod(self.shape)) if sign else None, persistent=False)
        for name, matrix in zip(("dct", "last_dct"), self._matrices(), strict=True):
            self.register_buffer(name, matrix.to(self.pool.device), persistent=False)

    def _table(self) -> Tensor:
        """Which value of the pool each coefficient is, (out x in x taps,)."""
        with torch.device("cpu"):
            bands = weight_bands(self.shape, self.block, self.window)
            counts = (self.shape[0] * bands.bincount()).tolist()
            if len(counts) != len(self.pools) or not all(1 <= k <= n for k, n in zip(self.pools, counts, strict=True)):
                raise UserError(f"frequency_hash of {self.shape} has no pools of {self.pools} values; "
                                f"there is one per band, with at most {counts}")
            table, start = torch.empty(self.shape[0], len(bands), dtype=torch.int64), 0
            for band, (pool, count) in enumerate(zip(self.pools, counts, strict=True)):
                picks = hash_indices(self.seed + band, count, pool, self.balanced)
                table[:, bands == band] = start + picks.view(len(table), -1)
                start += pool
        return table.flatten()

    def _matrices(self) -> tuple[Tensor, Tensor]:
        """`block_dct` of a whole block and of the last, float64; where all are whole the second is 1 x 1."""
        with torch.device("cpu"):
            last = self.shape[1] % self.block
            return block_dct([self.block, *self.window]), block_dct([last, *self.window] if last else [1])

    @classmethod
    @torch.no_grad()
    def fit(cls, weight: Tensor, options: FrequencyHashOptions, size: float | None = None,
            seed: int = 0) -> "FrequencyHash":
        """Least squares: the mean of the signed coefficients of each bucket, as the transform is orthonormal.

        Errors: those of `pool_size`; every band needs a value.
        """
        layer = cls._sized(weight.shape, options, size, seed).to(weight.device)
        target = exact(weight)
        transposes = [matrix.T.to(target) for matrix in (layer.dct, layer.last_dct)]
        coefficients = change_basis(target.flatten(1), transposes).flatten()
        pool = bucket_means(coefficients, layer.indices, layer.signs, len(layer.pool))
        layer.to(weight).pool.copy_(pool)
        return layer

    @classmethod
    def init(cls, shape: Sequence[int], options: FrequencyHashOptions, size: float | None = None,
             seed: int = 0) -> "FrequencyHash":
        """Pools from a uniform distribution; the transform keeps their variance, which is that of a dense start.

        Errors: as `fit`.
        """
        layer = cls._sized(shape, options, size, seed)
        uniform_start(layer.pool, shape, seed)
        return layer

    @classmethod
    def _sized(cls, shape: Sequence[int], options: FrequencyHashOptions, size: float | None,
               seed: int) -> "FrequencyHash":
        block, window = layout(shape, options.block, options.window)
        counts = shape[0] * weight_bands(shape, block, window).bincount()
        pools = band_pools(counts.tolist(), pool_size(cls.name, shape, size, len(counts)), options.alpha, options.beta)
        return cls(shape, pools, block, window, seed, options.balanced, options.sign)

    @classmethod
    def min_parameters(cls, shape: Sequence[int], options: FrequencyHashOptions) -> int:
        return int(weight_bands(shape, *layout(shape, options.block, options.window)).max()) + 1

    def spec(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "pools": self.pools, "block": self.block, "window": list(self.window),
                "seed": self.seed, "balanced": self.balanced, "sign": self.sign, "hash": HASH}

    def dense(self) -> Tensor:
        coefficients = hashed_values(self.pool, self.indices, self.signs).view(self.shape[0], -1)
        with torch.autocast(self.pool.device.type, enabled=False):
            matrices = [matrix.to(coefficients) for matrix in (self.dct, self.last_dct)]
            return change_basis(coefficients, matrices).view(self.shape)


def layout(shape: Sequence[int], block: int, window: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    """The block and window of a weight: no wider than its inputs, and a line of taps where the window has others.

    Errors: UserError for one below 1.
    """
    taps = math.prod(shape[2:])
    require(min((block, *window)) >= 1,
            f"frequency_hash: block is {block} and window {list(window)}; all are at least 1")
    return min(block, shape[1]), tuple(window) if window and math.prod(window) == taps else (taps,)
