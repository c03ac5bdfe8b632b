"""Loops of `range` over symbols, in integers, compiled when they are first called: a few seconds once, then kept.

The symbols of a pass are places `start`, start + gap, ... of the middle axis of an array of three.
"""

import numpy as np
from numpy.typing import NDArray

from asrcompress.compression._compiled import compiled

NEAR = np.array([min(7, total.bit_length()) for total in range(65)])  # by the sum of two tokens, at most 64


@compiled
def near(tokens: NDArray[np.uint16], outer: int, place: int, inner: int, stride: int) -> int:
    """The class (0 to 7) of the neighbours of a place."""
    after = place + stride if place + stride < tokens.shape[1] else place - stride
    total = np.int64(tokens[outer, place - stride, inner]) + np.int64(tokens[outer, after, inner])
    return int(NEAR[min(total, np.int64(64))])


@compiled
def contexts(tokens: NDArray[np.uint16], rows: NDArray[np.int64], columns: NDArray[np.int64], across: int, first: int,
             last: int, start: int, gap: int, steps: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Of the symbols of a pass; start is 0 or the distance of the neighbours. `across` is the columns of the matrix;
    `rows` and `columns` are empty where they say nothing."""
    outers, length, inners = tokens.shape
    found = np.empty((outers, max(0, -(-(length - start) // gap)), inners), np.uint8)
    for outer in range(outers):
        for number in range(found.shape[1]):
            place = start + number * gap
            row, column = divmod((outer * length + place) * inners, across)
            for inner in range(inners):
                context = first
                if rows.size:
                    context += rows[row]
                if columns.size:
                    context += columns[column]
                if start:
                    context += steps[near(tokens, outer, place, inner, start)]
                found[outer, number, inner] = min(max(context, 0), last)
                column += 1
                if column == across:
                    row, column = row + 1, 0
    return found


@compiled
def count(tokens: NDArray[np.uint16], context: NDArray[np.uint8], start: int, gap: int,
          counts: NDArray[np.int64]) -> None:
    """Add the tokens of a pass to `counts` (contexts, tokens)."""
    for outer in range(context.shape[0]):
        for number in range(context.shape[1]):
            for inner in range(context.shape[2]):
                counts[context[outer, number, inner], tokens[outer, start + number * gap, inner]] += 1


@compiled
def group(tokens: NDArray[np.uint16], context: NDArray[np.uint8], start: int, gap: int,
          places: NDArray[np.int64]) -> NDArray[np.int32]:
    """The tokens of a pass by context, in each in C order; the first of each goes to its place."""
    grouped, nexts = np.empty(context.size, np.int32), places.copy()
    for outer in range(context.shape[0]):
        for number in range(context.shape[1]):
            for inner in range(context.shape[2]):
                one = context[outer, number, inner]
                grouped[nexts[one]] = tokens[outer, start + number * gap, inner]
                nexts[one] += 1
    return grouped


@compiled
def ungroup(grouped: NDArray[np.int32], context: NDArray[np.uint8], start: int, gap: int, places: NDArray[np.int64],
            tokens: NDArray[np.uint16]) -> None:
    """Put the tokens of a pass back where they belong."""
    nexts = places.copy()
    for outer in range(context.shape[0]):
        for number in range(context.shape[1]):
            for inner in range(context.shape[2]):
                one = context[outer, number, inner]
                tokens[outer, start + number * gap, inner] = grouped[nexts[one]]
                nexts[one] += 1


@compiled
def sums_by_class(tokens: NDArray[np.uint16], values: NDArray[np.float32], context: NDArray[np.uint8],
                  means: NDArray[np.float64], stride: int) -> NDArray[np.float64]:
    """(2, 8): of the values of a pass, and of the means of their contexts, by the class of their neighbours."""
    sums = np.zeros((2, 8))
    for outer in range(tokens.shape[0]):
        for place in range(stride, tokens.shape[1], 2 * stride):
            for inner in range(tokens.shape[2]):
                one = near(tokens, outer, place, inner, stride)
                sums[0, one] += values[outer, place, inner]
                sums[1, one] += means[context[outer, place, inner]]
    return sums


@compiled
def means_by_context(values: NDArray[np.float32], context: NDArray[np.uint8], total: int) -> NDArray[np.float64]:
    sums, counts = np.zeros(total), np.zeros(total)
    for outer in range(context.shape[0]):
        for place in range(context.shape[1]):
            for inner in range(context.shape[2]):
                sums[context[outer, place, inner]] += values[outer, place, inner]
                counts[context[outer, place, inner]] += 1
    return sums / np.maximum(1, counts)


@compiled
def histogram(flat: NDArray[np.int64], low: int, size: int) -> NDArray[np.int64]:
    counts = np.zeros(size, np.int64)
    for symbol in flat:
        counts[symbol - low] += 1
    return counts


@compiled
def extremes(flat: NDArray[np.int64]) -> tuple[int, int]:
    low, high = flat[0], flat[0]
    for symbol in flat:
        low, high = min(low, symbol), max(high, symbol)
    return low, high


@compiled
def moments(values: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """The means of the rows of a matrix, of its columns, and the variance of all."""
    rows, columns, squares = np.zeros(values.shape[0]), np.zeros(values.shape[1]), 0.0
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            value = np.float64(values[row, column])
            rows[row] += value
            columns[column] += value
            squares += value * value
    mean = rows.sum() / values.size
    return rows / values.shape[1], columns / values.shape[0], max(0.0, squares / values.size - mean * mean)
