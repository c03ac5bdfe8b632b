"""float16: every value in half precision (IEEE 754 binary16), in half the bytes."""

from collections.abc import Sequence
from typing import Any

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

    def __init__(self, shape: Sequence[int], options: Any) -> None:
        super().__init__(shape, options)
        self.weight = nn.Parameter(torch.zeros(self.shape, dtype=torch.float32))

    @classmethod
    def fit(cls, tensor: Tensor, options: Any, seed: int = 0) -> "Float16":
        if tensor.numel() and float(tensor.abs().max()) > LARGEST:
            raise UserError(f"quantization float16 reaches {LARGEST:g}, and the tensor holds "
                            f"{float(tensor.abs().max()):g}; exclude it, or rescale the layer")
        one = cls(tensor.shape, options)
        one.weight = nn.Parameter(tensor.clone())
        return one

    def tensor(self) -> Tensor:
        rounded = self.weight.half().float()
        return self.weight + (rounded - self.weight).detach() if self.weight.requires_grad else rounded

    def parts(self) -> Encoded:
        return Encoded(floats={"values": self.weight.detach().cpu().half().numpy()})

    @staticmethod
    def decode(encoded: Encoded, shape: Sequence[int]) -> NDArray[np.float32]:
        return encoded.floats["values"].astype(np.float32).reshape(shape)
