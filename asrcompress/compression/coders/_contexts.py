"""Contexts of `range`: which table each symbol has, from its row, its column and neighbours that are known already."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asrcompress.compression.coders._symbols import Symbols

MOST = 64
FARTHEST = 8
HIGHEST = 4096  # no integer that makes a context is farther from 0
NONE, FIRST, LAST = 0, 1, 2


class Contexts(NamedTuple):
    """One table for all symbols, unless something is given."""

    total: int = 1
    first: int = 0  # added to all
    rows: Symbols | None = None
    columns: Symbols | None = None
    axis: int = NONE
    steps: Symbols | None = None  # (passes after the first, 8)

    def of(self, rows: slice, columns: slice) -> "Contexts":
        """Those of some rows and columns."""
        return self._replace(rows=None if self.rows is None else self.rows[rows],
                             columns=None if self.columns is None else self.columns[columns])


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


class Pass(NamedTuple):
    """Places start, start + gap, ... of the middle axis, and their contexts."""

    start: int
    gap: int
    contexts: NDArray[np.uint8]


def walk(tokens: NDArray[np.uint16], shape: Sequence[int], contexts: Contexts) -> Iterator[Pass]:
    """Pass by pass; reads `tokens` only where earlier passes were."""
    from asrcompress.compression.coders import _loops  # compiled only where it is used

    nothing, reach = np.zeros(0, np.int64), strides(shape, contexts.axis)
    rows, columns = (nothing if part is None else part for part in (contexts.rows, contexts.columns))
    passes = [(0, 2 * reach[0] if reach else 1, nothing)]
    passes += [(stride, 2 * stride, steps) for stride, steps in
               zip(reach, contexts.steps if contexts.steps is not None else (), strict=True)]
    for start, gap, steps in passes:
        yield Pass(start, gap, _loops.contexts(tokens, rows, columns, max(1, matrix(shape)[1]), contexts.first,
                                               contexts.total - 1, start, gap, steps))
