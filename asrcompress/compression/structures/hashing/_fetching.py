"""Weights that are made from values which they fetch from pools, chunk by chunk, and the gradients of those values.

A training step never holds what all weights fetch, only what those of a chunk do.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 2**15  # weights whose fetched values a core's cache holds


class Table(NamedTuple):
    """Where each weight fetches its U values."""

    indices: Tensor  # (U, n) int32
    signs: Tensor | None  # (U, n) int8

    def fetch(self, pool: Tensor, part: slice) -> Tensor:
        """The values (U, chunk) of a part of the weights."""
        values = pool.new_empty(len(self.indices), part.stop - part.start)
        for row, line in zip(self.indices, values, strict=True):
            torch.index_select(pool, 0, row[part], out=line)
        return values if self.signs is None else values.mul_(self.signs[:, part])

    def add(self, sums: Tensor, u: int, part: slice, values: Tensor) -> None:
        """The other way: add values (chunk,) to the sums (K,) where the u-th values come from, with their signs."""
        if self.signs is not None:
            values = values * self.signs[u, part]
        sums.scatter_add_(0, self.indices[u, part].long(), values)  # on a CPU faster than index_add_


def summed(table: Table, pool: Tensor, coefficients: Tensor) -> Tensor:
    """sum_u c_u a_u (n,)."""
    return _Sum.apply(table, pool, coefficients)  # type: ignore[no-any-return,no-untyped-call]


class _Sum(torch.autograd.Function):
    """`summed`, whose gradient needs nothing that was fetched, only sums of the weights' gradients per bucket."""

    @staticmethod
    def forward(ctx: Any, table: Table, pool: Tensor, coefficients: Tensor) -> Tensor:
        ctx.table = table
        ctx.save_for_backward(pool, coefficients)
        weight = pool.new_empty(table.indices.shape[1])
        for part in _chunks(len(weight)):
            torch.mv(table.fetch(pool, part).T, coefficients, out=weight[part])
        return weight

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor]:
        pool, coefficients = ctx.saved_tensors
        of_pool, of_coefficients, sums = torch.zeros_like(pool), torch.zeros_like(coefficients), torch.empty_like(pool)
        for u in range(len(coefficients)):
            sums.zero_()
            for part in _chunks(len(gradient)):
                ctx.table.add(sums, u, part, gradient[part])
            of_coefficients[u] = sums @ pool
            of_pool.addcmul_(sums, coefficients[u])
        return None, of_pool, of_coefficients


def rebuild(g: Callable[..., Tensor], tables: Sequence[Table], pools: Sequence[Tensor], *net: Tensor) -> Tensor:
    """g(values, ..., *net) (n,) of the values (U, n) that are fetched by each table from its pool."""
    return _Rebuild.apply(g, tables, *pools, *net)  # type: ignore[no-any-return,no-untyped-call]


class _Rebuild(torch.autograd.Function):
    """`rebuild` chunk by chunk in both directions: memory for the values of a chunk, at the price of fetching twice."""

    @staticmethod
    def forward(ctx: Any, g: Callable[..., Tensor], tables: Sequence[Table], *tensors: Tensor) -> Tensor:
        ctx.g, ctx.tables = g, tables
        ctx.save_for_backward(*tensors)
        weight = tensors[0].new_empty(tables[0].indices.shape[1])
        for part in _chunks(len(weight)):
            values = [table.fetch(pool, part) for table, pool in zip(tables, tensors, strict=False)]
            weight[part] = g(*values, *tensors[len(tables):])
        return weight

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tensors, tables = ctx.saved_tensors, ctx.tables
        totals = [torch.zeros_like(tensor) for tensor in tensors]
        net = [tensor.detach().requires_grad_() for tensor in tensors[len(tables):]]
        for part in _chunks(len(gradient)):
            values = [table.fetch(pool, part).requires_grad_() for table, pool in zip(tables, tensors, strict=False)]
            with torch.enable_grad(), torch.autocast(gradient.device.type, enabled=False):
                found = torch.autograd.grad(ctx.g(*values, *net), values + net, gradient[part])
            for table, total, of_values in zip(tables, totals, found, strict=False):
                for u, line in enumerate(of_values):
                    table.add(total, u, part, line)
            for total, of_net in zip(totals[len(tables):], found[len(tables):], strict=True):
                total += of_net
        return None, None, *totals


def _chunks(count: int) -> Iterator[slice]:
    return (slice(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK))
