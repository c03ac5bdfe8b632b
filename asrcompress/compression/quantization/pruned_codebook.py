"""pruned_codebook: a codebook for what pruning left; the middle stage of Deep Compression, before the coder.

As a pipeline with retraining in between: quantization=pruned, training, quantization=pruned_codebook, training (the
zeros that are there are kept), then coder=huffman or range. With `density` it prunes by itself, at once.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from asrcompress.compression.quantization.codebook import Codebook
from asrcompress.compression.quantization.pruned import mask_of
from asrcompress.options import require


class PrunedCodebook(Codebook):
    """`Codebook` with a code for zero."""

    @dataclass(frozen=True)
    class Options(Codebook.Options):
        """Those of codebook; `density` is the fraction of each tensor that is kept, 0: the zeros it has stay zero."""

        density: float = 0.0

        def __post_init__(self) -> None:
            super().__post_init__()
            require(0 <= self.density <= 1, f"quantization pruned_codebook: density is {self.density:g}; it is "
                                              "above 0 and at most 1, or 0 for the zeros that there are")

    name, zero = "pruned_codebook", True

    @classmethod
    @torch.no_grad()
    def fit(cls, tensor: Tensor, options: Options, seed: int = 0) -> "Codebook":  # type: ignore[override]
        if options.density:
            keep = mask_of(tensor.abs().cpu(), options.density, torch.zeros(tensor.numel()))
            tensor = tensor * keep.to(tensor.device)
        return super().fit(tensor, options, seed)
