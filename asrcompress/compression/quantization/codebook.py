"""codebook: every value is one of few centroids of its tensor, found by k-means and trained afterwards.

Han, Mao and Dally, "Deep compression", ICLR 2016: linear, density and random (Forgy) starts; the gradient of a centroid
is the sum of its members' gradients.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asrcompress.compression.quantization._kmeans import kmeans
from asrcompress.compression.quantization.base import Encoded, Quantizer, require_shapes
from asrcompress.options import require


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
    """A code per value and a codebook; with the class's `zero`, zeros (what pruning left) have code 0."""

    @dataclass(frozen=True)
    class Options:
        """At most `entries` centroids; k-means begins at `start`; `exact`: the optimum, by dynamic programming."""

        entries: int = 32
        start: Literal["linear", "density", "random"] = "linear"
        exact: bool = False

        def __post_init__(self) -> None:
            require(1 <= self.entries <= 2**15, f"quantization codebook: entries is {self.entries}; a codebook has 1 "
                                                "to 32768")

    name = "codebook"
    zero: ClassVar[bool] = False
    options: Options
    codes: Tensor

    def __init__(self, shape: Sequence[int], options: Options) -> None:
        super().__init__(shape, options)
        entries = options.entries
        self.codebook = nn.Parameter(torch.zeros(entries, dtype=torch.float32))
        kind = torch.uint8 if entries < 256 else torch.int16 if entries + self.zero <= 2**15 else torch.int32
        self.register_buffer("codes", torch.zeros(self.shape, dtype=kind))

    @classmethod
    @torch.no_grad()
    def fit(cls, tensor: Tensor, options: Options, seed: int = 0) -> "Codebook":
        """The codebook has at most `entries` centroids, of the nonzero values where zeros have a code of their own."""
        values = tensor.detach().double().cpu().numpy().ravel()
        live = values[values != 0] if cls.zero else values
        centroids = kmeans(live, options.entries, options.start, options.exact, seed) if live.size else np.zeros(1)
        one = cls(tensor.shape, replace(options, entries=len(centroids)))
        one.codebook.copy_(torch.from_numpy(centroids))
        codes = np.searchsorted((centroids[1:] + centroids[:-1]) / 2, values) + int(cls.zero)
        codes[(values == 0) & cls.zero] = 0
        one.codes.copy_(torch.from_numpy(codes).reshape(tensor.shape))
        return one

    def tensor(self) -> Tensor:
        codebook = torch.cat([self.codebook.new_zeros(1), self.codebook]) if self.zero else self.codebook
        return _Gather.apply(codebook, self.codes)

    def parts(self) -> Encoded:
        return Encoded({"codes": self.codes.cpu().numpy().astype(np.int64)},
                       {"codebook": self.codebook.detach().cpu().numpy()}, {"zero": self.zero})

    @staticmethod
    def decode(encoded: Encoded, shape: Sequence[int]) -> NDArray[np.float32]:
        codebook = encoded.floats["codebook"]
        require_shapes(encoded, codebook=(codebook.size,), codes=shape)
        if encoded.spec["zero"]:
            codebook = np.concatenate([np.zeros(1, codebook.dtype), codebook])
        codes = encoded.integers["codes"]
        if codes.size and not 0 <= codes.min() <= codes.max() < len(codebook):
            raise ValueError(f"codes up to {codes.max()} for a codebook of {len(codebook)}")
        return codebook[codes].reshape(shape)
