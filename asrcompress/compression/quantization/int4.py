"""int4: integers of 4 bits with a scale per group of numbers in a row, by default 32 and symmetric."""

import torch
from torch import Tensor

from asrcompress.compression.quantization._integer import Integer


class Int4(Integer):
    """`group=32` costs half a bit a number for the scales; `group=0` is a scale per output channel."""

    name, bits = "int4", 4

    @classmethod
    @torch.no_grad()
    def fit(cls, tensor: Tensor, seed: int = 0, *, group: int = 32, affine: bool = False) -> "Integer":
        return super().fit(tensor, seed, group=group, affine=affine)
