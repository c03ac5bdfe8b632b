"""toeplitz: a weight cut into blocks that are constant along their diagonals.

Entry (i, j) of a block is t[i - j], so a block of h x w stores h + w - 1 parameters. Blocks are square, clipped to the
weight: the largest is the weight itself, whose out + in - 1 parameters are the smallest size of most shapes. A product
embeds each block in a circulant matrix. A kernel has a grid of blocks per tap; a Toeplitz matrix over time would only
be another convolution, so the diagonals run over channels.

Projecting a trained weight of independent entries leaves a relative error of sqrt(1 - parameters / entries).

Gray, "Toeplitz and circulant matrices: a review", 2006.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from asrcompress.compression.structures.displacement._cyclic import Cyclic, block_for


@dataclass(frozen=True)
class ToeplitzOptions:
    """Where no budget shares out a size, `block` says how much is kept."""

    block: int | None = None  # the longer side of the blocks


def sides(shape: Sequence[int], block: int) -> tuple[int, int]:
    """(height, width) of the blocks of this size."""
    return min(block, shape[0]), min(block, shape[1])


def block_parameters(shape: Sequence[int], block: int) -> int:
    """How many parameters blocks of this size store."""
    out, inputs, taps = (*shape, 1)[:3]
    height, width = sides(shape, block)
    return -(-out // height) * -(-inputs // width) * (height + width - 1) * taps


class Toeplitz(Cyclic):
    """`diagonals` (block rows, taps x block columns, h + w - 1): t_0 to t_(h-1) downwards, then t_(1-w) to t_(-1)."""

    name = "toeplitz"
    Options = ToeplitzOptions

    def __init__(self, shape: Sequence[int], block: int) -> None:
        block_for(self.name, shape, None, block, block_parameters)
        height, width = sides(shape, block)
        super().__init__(shape, height, width, height + width - 1)
        self.block = block

    @classmethod
    def fit(cls, weight: Tensor, options: ToeplitzOptions, size: float | None = None, seed: int = 0) -> "Toeplitz":
        """Least squares: the means of the diagonals. Errors: those of `block_for`."""
        layer = cls(weight.shape, block_for(cls.name, weight.shape, size, options.block, block_parameters))
        layer.project(weight)
        return layer

    @classmethod
    def init(cls, shape: Sequence[int], options: ToeplitzOptions, size: float | None = None,
             seed: int = 0) -> "Toeplitz":
        """Normal values of the variance of a dense start. Errors: those of `block_for`."""
        layer = cls(shape, block_for(cls.name, shape, size, options.block, block_parameters))
        layer.start(seed)
        return layer

    @classmethod
    def min_parameters(cls, shape: Sequence[int], options: ToeplitzOptions) -> int:
        blocks = [options.block] if options.block else range(1, max(shape[:2]) + 1)
        return min(block_parameters(shape, block) for block in blocks)

    def spec(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "block": self.block}
