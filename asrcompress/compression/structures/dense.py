"""dense: the weight itself. The control, and what a layer stays where nothing smaller pays."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asrcompress.compression.structures.base import CannotShrink, Structure, dense_std, per_row


@dataclass(frozen=True)
class DenseOptions:
    """There are none."""


class Dense(Structure):
    """All parameters of the weight, kept as they are."""

    name = "dense"
    Options = DenseOptions

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape)
        self.weight = nn.Parameter(torch.zeros(self.shape))

    @classmethod
    def fit(cls, weight: Tensor, options: DenseOptions, size: float | None = None,
            seed: int = 0) -> "Dense":
        """A copy of the weight. Errors: CannotShrink for a size below 1."""
        _whole(size)
        layer = cls(weight.shape).to(weight)
        layer.weight = nn.Parameter(weight.clone())
        return layer

    @classmethod
    def init(cls, shape: Sequence[int], options: DenseOptions, size: float | None = None,
             seed: int = 0) -> "Dense":
        """Normal values with the variance of a dense start. Errors: CannotShrink for a size below 1."""
        _whole(size)
        layer = cls(shape)
        with torch.no_grad():
            layer.weight.normal_(0, dense_std(shape), generator=torch.Generator().manual_seed(seed))
        return layer

    @classmethod
    def min_parameters(cls, shape: Sequence[int], options: DenseOptions) -> int:
        return math.prod(shape)

    def dense(self) -> Tensor:
        return self.weight

    @torch.no_grad()
    def scale_rows(self, scale: Tensor) -> bool:
        self.weight.mul_(per_row(scale, len(self.shape)))
        return True


def _whole(size: float | None) -> None:
    if size is not None and size < 1:
        raise CannotShrink(f"structure dense stores every parameter: size {size:g} cannot be reached, "
                           "the smallest is 1")
