"""float16: every number in half precision (IEEE 754 binary16), in half the bytes."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asrcompress.compression.quantization.base import Encoded, Quantizer
from asrcompress.errors import UserError

LARGEST = float(torch.finfo(torch.float16).max)


class Float16(Quantizer):
    """Trained in float32, rounded to half precision (to nearest even) with gradients straight through."""

    name = "float16"

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape)
        self.numbers = nn.Parameter(torch.zeros(self.shape))

    @classmethod
    def fit(cls, tensor: Tensor, seed: int = 0) -> "Float16":
        if tensor.numel() and float(tensor.abs().max()) > LARGEST:
            raise UserError(f"values float16 reach {LARGEST:g}, and the tensor holds {float(tensor.abs().max()):g}; "
                            "exclude it, or rescale the layer")
        one = cls(tensor.shape)
        one.numbers = nn.Parameter(tensor.float().clone())
        return one

    def tensor(self) -> Tensor:
        rounded = self.numbers.half().float()
        return self.numbers + (rounded - self.numbers).detach() if self.numbers.requires_grad else rounded

    def encode(self) -> Encoded:
        return Encoded(floats={"numbers": self.numbers.detach().cpu().half().numpy()})

    @staticmethod
    def decode(encoded: Encoded, shape: Sequence[int]) -> NDArray[np.float32]:
        return encoded.floats["numbers"].astype(np.float32).reshape(shape)
