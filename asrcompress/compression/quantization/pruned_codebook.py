"""pruned_codebook: what pruning left is shared; the two middle stages of Deep Compression, the coder being the third.

As a pipeline with retraining in between: quantization=pruned, training, quantization=pruned_codebook, training (the zeros that are
there are kept), then coder=huffman or range. With `density` it prunes by itself, at once.
"""

import torch
from torch import Tensor

from asrcompress.compression.quantization.codebook import Codebook
from asrcompress.compression.quantization.pruned import mask_of


class PrunedCodebook(Codebook):
    """`Codebook` with a code for zero; `density` 0 takes the zeros of the tensor as they are."""

    name = "pruned_codebook"

    @classmethod
    @torch.no_grad()
    def fit(cls, tensor: Tensor, seed: int = 0, *, entries: int = 32, start: str = "linear", exact: bool = False,
            zero: bool = True, density: float = 0.0) -> "Codebook":
        if density:
            keep = mask_of(tensor.abs().cpu(), density, torch.zeros(tensor.numel()))
            tensor = tensor * keep.to(tensor.device)
        return super().fit(tensor, seed, entries=entries, start=start, exact=exact, zero=True)
