"""Contexts of `range`: which table each symbol has, from its row, its column and neighbours that are known already."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asrcompress.compression.coders._symbols import Symbols

MOST = 64
FARTHEST = 8
NEAR = np.array([min(7, total.bit_length()) for total in range(65)], np.int8)  # by the sum of two tokens, at most 64
HIGHEST = 4096  # no integer that makes a context is farther from 0, so that sums fit 16 bits
NONE, FIRST, LAST = 0, 1, 2


class Contexts(NamedTuple):
    """One table for all symbols, unless something is given."""

    total: int = 1
    first: int = 0  # added to all
    rows: Symbols | None = None
    columns: Symbols | None = None
    axis: int = NONE
    steps: Symbols | None = None  # (passes after the first, 8)

    def of_places(self, shape: Sequence[int]) -> NDArray[np.int16]:
        """First + row + column of each symbol, seen as `view` says."""
        rows, columns = matrix(shape)
        down = np.zeros(rows, np.int64) if self.rows is None else self.rows
        across = np.zeros(columns, np.int64) if self.columns is None else self.columns
        return (down.astype(np.int16)[:, None] + (across + self.first).astype(np.int16)).reshape(view(shape, self.axis))


def matrix(shape: Sequence[int]) -> tuple[int, int]:
    """(rows, columns)"""
    return (shape[0], math.prod(shape[1:])) if len(shape) > 1 else (1, math.prod(shape))


def view(shape: Sequence[int], axis: int) -> tuple[int, int, int]:
    """The shape with the axis of the passes in the middle."""
    if axis == NONE or not shape:
        return 1, math.prod(shape), 1
    return (1, shape[0], math.prod(shape[1:])) if axis == FIRST else (math.prod(shape[:-1]), shape[-1], 1)


def strides(shape: Sequence[int], axis: int) -> list[int]:
    """How far the neighbours are in each pass after the first."""
    length = view(shape, axis)[1] if axis else 1
    farthest = min(FARTHEST, 1 << (length - 1).bit_length() - 1) if length > 1 else 0
    return [farthest >> fold for fold in range(farthest.bit_length())]


def near(tokens: NDArray[np.uint16], stride: int) -> NDArray[np.int8]:
    """The class (0 to 7) of the neighbours of the places stride, 3 stride, 5 stride, ... of the middle axis."""
    before, after = tokens[:, : -stride : 2 * stride], tokens[:, 2 * stride :: 2 * stride]
    total = before + before
    total[:, : after.shape[1]] += after - before[:, : after.shape[1]]
    return NEAR[np.minimum(total, 64, out=total)]


def walk(tokens: NDArray[np.uint16], shape: Sequence[int],
         contexts: Contexts) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
    """(places on the middle axis, their contexts) pass by pass; reads `tokens` only where earlier passes were."""
    base, last = contexts.of_places(shape), contexts.total - 1
    reach = strides(shape, contexts.axis)
    first = slice(0, None, 2 * reach[0] if reach else None)
    yield first, base[:, first].clip(0, last).astype(np.uint8)
    for stride, steps in zip(reach, contexts.steps if contexts.steps is not None else (), strict=True):
        where = slice(stride, None, 2 * stride)
        context = steps.astype(np.int16)[near(tokens, stride)]
        context += base[:, where]
        yield where, context.clip(0, last, out=context).astype(np.uint8)
