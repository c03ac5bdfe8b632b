"""What every way of writing numbers is: a parametrization that makes a tensor from what the file will hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


@dataclass(frozen=True)
class Encoded:
    """A tensor as it is stored.

    `integers` go through a coder of `bits`, each array with its shape; `floats` (float32 or float16: scales, centroids)
    are written as they are; `spec` is what else `decode` needs, plain JSON.
    """

    integers: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    floats: dict[str, NDArray[np.floating]] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)


class Quantizer(nn.Module):
    """Base of every way of writing numbers. It stands where a parameter stood (`quantization.attach`) and makes it when asked.

    `tensor()` is what `decode` will give back, while gradients reach the numbers that are trained, straight through
    where rounding has none. What training changes are parameters; what it must not are buffers.
    """

    name = ""
    row_scale: Tensor | None  # (rows,), what folding a BatchNorm leaves; only on the way to a packed file

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(int(n) for n in shape)
        self.register_buffer("row_scale", None)

    @classmethod
    def fit(cls, tensor: Tensor, seed: int = 0) -> "Quantizer":
        """The nearest member to a trained tensor of any shape."""
        raise NotImplementedError

    @classmethod
    def build(cls, spec: Mapping[str, Any]) -> "Quantizer":
        """The member with this `spec()`, its numbers still to be loaded."""
        return cls(**spec)

    def spec(self) -> dict[str, Any]:
        """The plain JSON values from which `build` makes the same module, without tensors."""
        return {"shape": list(self.shape)}

    def tensor(self) -> Tensor:
        """The tensor, of `self.shape`."""
        raise NotImplementedError

    def forward(self) -> Tensor:
        tensor = self.tensor()
        return tensor if self.row_scale is None else tensor * self.row_scale.view(-1, *[1] * (tensor.dim() - 1))

    @torch.no_grad()
    def scale_rows(self, scale: Tensor) -> None:
        """Multiply the rows of the tensor by `scale` (rows,), exactly: what is stored of the tensor stays as it is."""
        self.row_scale = scale if self.row_scale is None else self.row_scale * scale

    def encode(self) -> Encoded:
        """What the packed file holds."""
        raise NotImplementedError

    @staticmethod
    def decode(encoded: Encoded, shape: Sequence[int]) -> NDArray[np.float32]:
        """The tensor again, bit for bit what `tensor()` gave; ValueError where the parts contradict each other."""
        raise NotImplementedError

    def rate(self) -> Tensor | None:
        """Estimated bits of the coded tensor, differentiable, for training under a size; None: nothing to train for."""
        return None

    @torch.no_grad()
    def advance(self, progress: float) -> None:
        """Called before each training step with the share of the training that is done (0 to 1): schedules."""

    def right_inverse(self, tensor: Tensor) -> tuple[()]:  # parametrize then keeps nothing of the original
        return ()
