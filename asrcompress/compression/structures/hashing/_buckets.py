"""Weights that are looked up in a pool by a hash table, and the pool that is nearest to trained weights."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from asrcompress.compression.structures.base import exact


def hashed_values(pool: Tensor, indices: Tensor, signs: Tensor | None = None) -> Tensor:
    """pool[indices] x signs, (count,), with a gradient for the pool that takes about as long as the look-up itself."""
    return _Lookup.apply(pool, indices, signs)  # type: ignore[no-any-return,no-untyped-call]


def bucket_sums(values: Tensor, indices: Tensor, signs: Tensor | None, buckets: int) -> Tensor:
    """The sum of values x signs (count,) in each bucket, (buckets,), added up in float32 at least."""
    values = exact(values)
    signed = values if signs is None else values * signs
    return torch.zeros(buckets, dtype=values.dtype, device=values.device).scatter_add_(0, indices, signed)


def bucket_means(values: Tensor, indices: Tensor, signs: Tensor | None, buckets: int) -> Tensor:
    """The pool (buckets,) whose `hashed_values` are nearest to `values` (count,) in least squares; 0 where unused."""
    loads = torch.bincount(indices, minlength=buckets).clamp_min(1)
    return bucket_sums(values, indices, signs, buckets) / loads


class _Lookup(torch.autograd.Function):
    """On a CPU `scatter_add_` is up to twice as fast as the `index_add_` of autograd's own `index_select`."""

    @staticmethod
    def forward(ctx: Any, pool: Tensor, indices: Tensor, signs: Tensor | None) -> Tensor:
        ctx.save_for_backward(indices, signs)
        ctx.buckets = len(pool)
        values = pool.index_select(0, indices)
        return values if signs is None else values.mul_(signs)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        indices, signs = ctx.saved_tensors
        return bucket_sums(gradient, indices, signs, ctx.buckets).to(gradient.dtype), None, None
