"""dense: the weight itself. The control, and what a layer stays where nothing smaller pays."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from asrcompress.compression.structures.base import CannotShrink, Structure, dense_std


class Dense(Structure):
    """All numbers of the weight, kept as they are."""

    name = "dense"

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape)
        self.weight = nn.Parameter(torch.zeros(self.shape))

    @classmethod
    def fit(cls, weight: Tensor, size: float | None = None, seed: int = 0) -> "Dense":
        _whole(size)
        layer = cls(weight.shape).to(weight)
        layer.weight = nn.Parameter(weight.clone())
        return layer

    @classmethod
    def init(cls, shape: Sequence[int], size: float | None = None, seed: int = 0) -> "Dense":
        _whole(size)
        layer = cls(shape)
        with torch.no_grad():
            layer.weight.normal_(0, dense_std(shape), generator=torch.Generator().manual_seed(seed))
        return layer

    @classmethod
    def min_parameters(cls, shape: Sequence[int]) -> int:
        return math.prod(shape)

    def dense(self) -> Tensor:
        return self.weight

    @torch.no_grad()
    def scale_rows(self, scale: Tensor) -> bool:
        self.weight.mul_(scale.view(-1, *[1] * (len(self.shape) - 1)))
        return True


def _whole(size: float | None) -> None:
    if size is not None and size < 1:
        raise CannotShrink(f"structure dense stores every number: size {size:g} cannot be reached, the smallest is 1")
