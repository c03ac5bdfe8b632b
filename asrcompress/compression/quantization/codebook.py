"""shared: every number is one of few centroids of its tensor, found by k-means and trained afterwards.

Han, Mao and Dally, "Deep compression", ICLR 2016: linear, density and random (Forgy) starts; the gradient of a centroid
is the sum of its members' gradients.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asrcompress.compression.quantization._kmeans import kmeans
from asrcompress.compression.quantization.base import Encoded, Quantizer
from asrcompress.errors import UserError


class _Gather(torch.autograd.Function):
    """codebook[codes]; counting with weights is a faster scatter-add than torch's."""

    @staticmethod
    def forward(ctx: Any, codebook: Tensor, codes: Tensor) -> Tensor:
        ctx.save_for_backward(codes)
        ctx.entries = len(codebook)
        return codebook[codes.long()]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (codes,) = ctx.saved_tensors
        sums = torch.bincount(codes.flatten().long(), gradient.flatten().double(), ctx.entries)
        return sums.to(gradient.dtype), None


class Codebook(Quantizer):
    """A code per number and a codebook; with `zero`, exact zeros (what pruning left) are code 0 and stay zero."""

    name = "codebook"
    codes: Tensor

    def __init__(self, shape: Sequence[int], entries: int, zero: bool = False) -> None:
        super().__init__(shape)
        if not 1 <= entries <= 2**15:
            raise UserError(f"values {self.name}: a codebook has 1 to 32768 entries, not {entries}")
        self.entries, self.zero = entries, zero
        self.codebook = nn.Parameter(torch.zeros(entries))
        self.register_buffer("codes", torch.zeros(self.shape, dtype=torch.uint8 if entries < 256 else torch.int16))

    @classmethod
    @torch.no_grad()
    def fit(cls, tensor: Tensor, seed: int = 0, *, entries: int = 32, start: str = "linear", exact: bool = False,
            zero: bool = False) -> "Codebook":
        """The codebook has at most `entries` centroids, of the nonzero numbers where `zero` keeps a code for zeros."""
        numbers = tensor.detach().double().cpu().numpy().ravel()
        live = numbers[numbers != 0] if zero else numbers
        centroids = kmeans(live, entries, start, exact, seed) if live.size else np.zeros(1)
        one = cls(tensor.shape, len(centroids), zero)
        one.codebook.copy_(torch.from_numpy(centroids))
        codes = np.searchsorted((centroids[1:] + centroids[:-1]) / 2, numbers) + int(zero)
        codes[(numbers == 0) & zero] = 0
        one.codes.copy_(torch.from_numpy(codes).reshape(tensor.shape))
        return one

    def tensor(self) -> Tensor:
        codebook = torch.cat([self.codebook.new_zeros(1), self.codebook]) if self.zero else self.codebook
        return _Gather.apply(codebook, self.codes)

    def encode(self) -> Encoded:
        return Encoded({"codes": self.codes.cpu().numpy().astype(np.int64)},
                       {"codebook": self.codebook.detach().cpu().numpy()}, {"zero": self.zero})

    @staticmethod
    def decode(encoded: Encoded, shape: Sequence[int]) -> NDArray[np.float32]:
        codebook = encoded.floats["codebook"]
        if encoded.spec["zero"]:
            codebook = np.concatenate([np.zeros(1, codebook.dtype), codebook])
        codes = encoded.integers["codes"]
        if codes.size and not 0 <= codes.min() <= codes.max() < len(codebook):
            raise ValueError(f"codes up to {codes.max()} for a codebook of {len(codebook)}")
        return codebook[codes].reshape(shape)

    def spec(self) -> dict[str, Any]:
        return {**super().spec(), "entries": self.entries, "zero": self.zero}
