"""Structures whose layers take their weights from one pool: they are made together, and stay tied."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from asrcompress.compression.structures.base import Allotment, Structure
from asrcompress.compression.structures.scaled import Scaled


class PooledStructure(Structure):
    """Base of families whose layers share a pool. `num_parameters()` of a layer is its part of the pool, rounded."""

    @classmethod
    def fit_all(cls, weights: Mapping[str, Tensor], allotments: Mapping[str, Allotment],
                seed: int = 0) -> dict[str, Structure]:
        """The members for the layers of one model, by path, each with its allotment. Missing is what should stay dense.

        Errors: those of `fit`, and UserError where the layers cannot share a pool.

        Weights are (out, in) or (out, in, taps).
        """
        raise NotImplementedError

    @classmethod
    def init_all(cls, shapes: Mapping[str, Sequence[int]], allotments: Mapping[str, Allotment],
                 seed: int = 0) -> dict[str, Structure]:
        """`fit_all` from scratch."""
        raise NotImplementedError

    def tied_pool(self) -> nn.Module:
        """The pool, a submodule of every layer that uses it."""
        raise NotImplementedError

    def tie_pool(self, pool: nn.Module) -> None:
        """Use the pool of another layer in place of its own. Errors: UserError where that has another layout."""
        raise NotImplementedError


def pooled(layer: Structure) -> PooledStructure | None:
    """The structure with a pool that `layer` is, or whose rows it scales; None where it has no pool."""
    inner = layer.inner if isinstance(layer, Scaled) else layer
    return inner if isinstance(inner, PooledStructure) else None
