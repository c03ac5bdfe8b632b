"""Loops of `trellis` over values, compiled when they are first called: a few seconds once, then kept on disk.

A search goes through LANES lines side by side, so that every inner loop is over lanes and the compiler makes vectors
of it. Nothing is reordered for speed (no fast math), and what a reader needs is in integers.
"""

import numpy as np
from numpy.typing import NDArray

from asrcompress.compression._compiled import compiled

LANES = 64
WORD = 32  # states of which one integer holds the choices


@compiled
def points(codes: NDArray[np.int64], line: int, after: NDArray[np.int64]) -> NDArray[np.int64]:
    """Multiples of the step, of a vector of codes; `after` (states, 2) is the next state by parity."""
    made, state = np.empty(codes.size, np.int64), 0
    for i in range(codes.size):
        code = codes[i]
        state = 0 if i % line == 0 else state
        made[i] = 2 * code - (state & 1) * (np.int64(code > 0) - np.int64(code < 0))
        state = after[state, code & 1]
    return made


@compiled
def squared_error(codes: NDArray[np.int32], values: NDArray[np.float32], step: float, line: int,
                  after: NDArray[np.int64]) -> float:
    """The sum over the values (in steps of 1) of what the points of their codes miss."""
    total, state = 0.0, 0
    for i in range(codes.size):
        code = np.int64(codes[i])
        state = 0 if i % line == 0 else state
        missed = (2 * code - (state & 1) * (np.int64(code > 0) - np.int64(code < 0))) * step - np.float64(values[i])
        total += missed * missed
        state = after[state, code & 1]
    return total


@compiled
def count(codes: NDArray[np.int32], classes: NDArray[np.uint8], counts: NDArray[np.float64]) -> None:
    """Add the magnitudes of codes to `counts` (classes, magnitudes), the last of which holds all that are larger."""
    for i in range(codes.size):
        counts[classes[i], min(abs(codes[i]), counts.shape[1] - 1)] += 1


@compiled
def search(values: NDArray[np.float32], classes: NDArray[np.uint8], prices: NDArray[np.float32], line: int,
           origins: NDArray[np.int64]) -> NDArray[np.int32]:
    """Codes of a vector of values (in steps) on the path of the least squared error plus prices.

    `prices` (classes, magnitudes): magnitudes beyond cost what the last one does. `origins` (states, 2, 2): the two
    states from which each can be reached, and with which parity.
    """
    states, length = len(origins), min(line, values.size)
    found = np.empty(values.size, np.int32)
    second = np.empty((length, -(-states // WORD), LANES), np.uint32)  # of the two ways into each state, a bit for each
    codes = np.empty((length, 4, LANES), np.int32)  # by quantizer and parity
    cost = np.empty((4, LANES), np.float32)
    total, longer = np.empty((states, LANES), np.float32), np.empty((states, LANES), np.float32)
    for first in range(0, values.size, LANES * line):
        total[:] = np.inf
        total[0] = 0
        for i in range(length):
            _candidates(values, classes, prices, first + i, line, codes[i], cost)
            _extend(total, cost, origins, longer, second[i])
            total, longer = longer, total
        for lane in range(LANES):
            start = first + lane * line
            if start < values.size:
                state = total[:, lane].argmin()
                for i in range(length - 1, -1, -1):
                    way = np.int64(second[i, state // WORD, lane] >> np.uint32(state % WORD) & np.uint32(1))
                    state, parity = origins[state, way, 0], origins[state, way, 1]
                    if start + i < values.size:
                        found[start + i] = codes[i, 2 * (state & 1) + parity, lane]
    return found


@compiled
def _candidates(values: NDArray[np.float32], classes: NDArray[np.uint8], prices: NDArray[np.float32], place: int,
                line: int, codes: NDArray[np.int32], cost: NDArray[np.float32]) -> None:
    """Of each quantizer and parity the nearest point, or zero where it is cheaper; beyond the end the value is 0."""
    most = np.int32(prices.shape[1] - 1)
    for lane in range(LANES):
        where = place + lane * line
        value = values[where] if where < values.size else np.float32(0)
        row = np.int64(classes[where]) if where < values.size else 0
        size, sign = abs(value), np.int32(-1) if value < 0 else np.int32(1)
        zero = size * size + prices[row, 0]
        for quantizer in range(2):
            below = np.int32((size + np.float32(quantizer)) * np.float32(0.5))
            odd = below | np.int32(1)
            even = below + (below & np.int32(1))
            error = np.float32(2 * odd - quantizer) - size
            cost[2 * quantizer + 1, lane] = error * error + prices[row, min(odd, most)]
            codes[2 * quantizer + 1, lane] = odd * sign
            error = np.float32(2 * even - quantizer * np.int32(even > 0)) - size
            other = error * error + prices[row, min(even, most)]
            cost[2 * quantizer, lane] = min(zero, other)
            codes[2 * quantizer, lane] = even * sign if other < zero else np.int32(0)


@compiled
def _extend(total: NDArray[np.float32], cost: NDArray[np.float32], origins: NDArray[np.int64],
            longer: NDArray[np.float32], second: NDArray[np.uint32]) -> None:
    second[:] = 0
    for state in range(len(origins)):
        one, other = origins[state, 0, 0], origins[state, 1, 0]
        this, that = 2 * (one & 1) + origins[state, 0, 1], 2 * (other & 1) + origins[state, 1, 1]
        word, bit = state // WORD, np.uint32(1 << state % WORD)
        for lane in range(LANES):
            first, last = total[one, lane] + cost[this, lane], total[other, lane] + cost[that, lane]
            second[word, lane] |= bit if last < first else np.uint32(0)
            longer[state, lane] = last if last < first else first
