"""pruned_shared: what pruning left is shared; the two middle stages of Deep Compression, the coder being the third.

As a pipeline with retraining in between: values=pruned, training, values=pruned_shared, training (the zeros that are
there are kept), then bits=huffman or range. With `density` it prunes by itself, at once.
"""

import torch
from torch import Tensor

from asrcompress.compression.values.pruned import mask_of
from asrcompress.compression.values.shared import Shared


class PrunedShared(Shared):
    """`Shared` with a code for zero; `density` 0 takes the zeros of the tensor as they are."""

    name = "pruned_shared"

    @classmethod
    @torch.no_grad()
    def fit(cls, tensor: Tensor, seed: int = 0, *, entries: int = 32, start: str = "linear", exact: bool = False,
            zero: bool = True, density: float = 0.0) -> "Shared":
        if density:
            keep = mask_of(tensor.abs().cpu(), density, torch.zeros(tensor.numel()))
            tensor = tensor * keep.to(tensor.device)
        return super().fit(tensor, seed, entries=entries, start=start, exact=exact, zero=True)
