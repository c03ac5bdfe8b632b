"""A structure of any family whose rows are scaled: what folding a BatchNorm into a layer leaves."""

from typing import Any

import torch
from torch import Tensor, nn

from asrcompress.compression.structures.base import Structure, per_row


class Scaled(Structure):
    """`inner` with row i of its weight multiplied by scale[i], (out,), which is stored: for rows that cannot scale."""

    def __init__(self, inner: Structure, scale: Tensor) -> None:
        super().__init__(inner.shape)
        self.inner, self.name = inner, inner.name  # type: ignore[misc]
        self.scale = nn.Parameter(scale)

    def dense(self) -> Tensor:
        return self.inner.dense() * per_row(self.scale, len(self.shape))

    def spec(self) -> dict[str, Any]:
        return {**self.inner.spec(), "row_scale": True}

    def num_parameters(self) -> int:
        return self.inner.num_parameters() + self.scale.numel()

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        y = self.inner(x) * self.scale
        return y if bias is None else y + bias

    def conv1d(self, x: Tensor, stride: int = 1, padding: int = 0, dilation: int = 1,
               bias: Tensor | None = None) -> Tensor:
        y = self.inner.conv1d(x, stride, padding, dilation) * self.scale[:, None]
        return y if bias is None else y + bias[:, None]

    def macs(self, frames: int, stride: int = 1) -> int:
        return self.inner.macs(frames, stride) + frames * self.shape[0]

    @torch.no_grad()
    def scale_rows(self, scale: Tensor) -> bool:
        self.scale.mul_(scale)
        return True


def scaled(structure: Structure, scale: Tensor) -> Structure:
    """`structure` with the rows of its weight multiplied by `scale` (out,): itself where it can, wrapped otherwise."""
    return structure if structure.scale_rows(scale) else Scaled(structure, scale)
