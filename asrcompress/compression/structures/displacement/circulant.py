"""circulant: a weight cut into square blocks, each of which is a circulant matrix times a diagonal of fixed signs.

Entry (i, j) of a block is c[(i - j) mod block] x sign_j, so a block of b x b stores b parameters, 1 / b of its size.
The largest block is the longer side of the weight: one block then covers it, padded and cropped. The signs belong to
the input (a circulant matrix alone treats smooth inputs alike) and come again from a seed. A kernel has a grid of
blocks per tap; they share the signs and, as every frame is transformed once for all taps, the transforms.

Steps between sizes are coarse: 1/2, 1/3, 1/4, ... Projecting a trained weight of independent entries leaves a relative
error of sqrt(1 - 1/b): train from scratch or fine-tune at length.

Cheng et al., "An exploration of parameter redundancy in deep networks with circulant projections", ICCV 2015; blocks:
Ding et al., "CirCNN", MICRO 2017.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from asrcompress.compression.structures.displacement._cyclic import Cyclic, block_for
from asrcompress.compression.structures.tables import HASH, check_hash, hash_signs


@dataclass(frozen=True)
class CirculantOptions:
    """Where no budget shares out a size, `block` says how much is kept."""

    block: int | None = None  # side of the blocks
    signs: bool = True  # flip the input by fixed random signs that come again from the seed


def block_parameters(shape: Sequence[int], block: int) -> int:
    """How many parameters blocks of this size store."""
    out, inputs, taps = (*shape, 1)[:3]
    return -(-out // block) * -(-inputs // block) * block * taps


class Circulant(Cyclic):
    """W = blocks of C(c) D; `diagonals` is (block rows, taps x block columns, block), D are the signs, if any."""

    name = "circulant"
    Options = CirculantOptions

    def __init__(self, shape: Sequence[int], block: int, signs: bool = True, seed: int = 0, hash: str = HASH) -> None:
        block_for(self.name, shape, None, block, block_parameters)
        super().__init__(shape, block, block, block)
        self.block, self.seed = block, seed
        if signs:
            check_hash(hash)
            self.signs = hash_signs(seed, self.shape[1])

    @classmethod
    def fit(cls, weight: Tensor, options: CirculantOptions, size: float | None = None, seed: int = 0) -> "Circulant":
        """Least squares: the means of the wrapped diagonals. Errors: those of `block_for`."""
        layer = cls._sized(weight.shape, options, size, seed)
        layer.project(weight)
        return layer

    @classmethod
    def init(cls, shape: Sequence[int], options: CirculantOptions, size: float | None = None,
             seed: int = 0) -> "Circulant":
        """Normal values of the variance of a dense start. Errors: those of `block_for`."""
        layer = cls._sized(shape, options, size, seed)
        layer.start(seed)
        return layer

    @classmethod
    def _sized(cls, shape: Sequence[int], options: CirculantOptions, size: float | None, seed: int) -> "Circulant":
        return cls(shape, block_for(cls.name, shape, size, options.block, block_parameters), options.signs, seed)

    @classmethod
    def min_parameters(cls, shape: Sequence[int], options: CirculantOptions) -> int:
        return block_parameters(shape, options.block or max(shape[:2]))

    def spec(self) -> dict[str, Any]:
        signs = {"signs": False} if self.signs is None else {"signs": True, "seed": self.seed, "hash": HASH}
        return {"shape": list(self.shape), "block": self.block, **signs}
