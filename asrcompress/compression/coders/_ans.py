"""ANS: symbols under tables of integer frequencies, as 32-bit words. Duda, arXiv:0902.0271, 2009; constriction's coder.

A table is frequencies f[0..A-1] >= 1 whose sum is 2^24. The reader has a state x below 2^64, at first 0, and a stack of
words, the last of which is not 0. To refill: if a word is left, take the last one w off and let x = 2^32 x + w. It
begins with two refills. To read a symbol under a table: q = x mod 2^24; s is the symbol with c <= q < c + f[s], where c
is the sum of the frequencies before f[s]; then x = f[s] floor(x / 2^24) + q - c, and if now x < 2^32, one refill. Under
a table with A = 1 nothing is read. At the end x is 0 and no word is left.
"""

import functools
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.int64]
PRECISION = 24
PIECE = 8  # plain bits that are coded at a time
WORD = np.dtype("<u4")


def normalized(weights: NDArray[np.int64]) -> Table:
    """Weights (..., A), whose sums are below 2^39, as frequencies: 1 + floor(w (2^24 - A) / sum), the rest to the
    first of the largest."""
    size = weights.shape[-1]
    table = 1 + weights * (2**PRECISION - size) // np.maximum(1, weights.sum(-1, keepdims=True))
    rest = 2**PRECISION - table.sum(-1, keepdims=True)
    first = weights.argmax(-1)[..., None]
    np.put_along_axis(table, first, np.take_along_axis(table, first, -1) + rest, -1)
    return table


def _model(table: Table) -> Any:
    """constriction makes floor(C (2^24 - A) / sum) + i of the floats before the i-th: with f - 1, exact, f again."""
    return constriction.stream.model.Categorical((table - 1).astype(np.float32), perfect=False)


@functools.lru_cache
def _plain(width: int) -> Any:
    return _model(np.full(2**width, 2 ** (PRECISION - width)))


class Writer:
    """Collects what a reader will ask for, in its order."""

    def __init__(self) -> None:
        self.parts: list[tuple[NDArray[np.int32], Any]] = []

    def put(self, symbols: NDArray[Any], table: Table) -> None:
        if symbols.size and len(table) > 1:
            self.parts.append((np.ascontiguousarray(symbols, np.int32), _model(table)))

    def put_plain(self, numbers: NDArray[np.uint64], width: int) -> None:
        """Numbers below 2^width: the lowest 8 bits of all, then the next 8 of all, and so on."""
        for start in range(0, width if numbers.size else 0, PIECE):
            piece = min(PIECE, width - start)
            low = numbers >> np.uint64(start) & np.uint64(2**piece - 1)
            self.parts.append((low.astype(np.int32), _plain(piece)))

    def put_number(self, number: int) -> None:
        """A number below 2^64: its length in 7 bits, then its bits."""
        for value, width in ((number.bit_length(), 7), (number, number.bit_length())):
            self.put_plain(np.array([value], np.uint64), width)

    def words(self) -> bytes:
        coder = constriction.stream.stack.AnsCoder()
        for symbols, model in reversed(self.parts):
            coder.encode_reverse(symbols, model)
        return coder.get_compressed().astype(WORD).tobytes()


class Reader:
    """Gives back what a writer was given. Raises ValueError for what is no stream; `close` checks the rest."""

    def __init__(self, data: bytes) -> None:
        words = np.frombuffer(data, WORD).astype(np.uint32)
        self.coder = constriction.stream.stack.AnsCoder(words)

    def take(self, count: int, table: Table) -> NDArray[np.int32]:
        if not count or len(table) == 1:
            return np.zeros(count, np.int32)
        return self.coder.decode(_model(table), count)

    def take_plain(self, count: int, width: int) -> NDArray[np.uint64]:
        numbers = np.zeros(count, np.uint64)
        for start in range(0, width if count else 0, PIECE):
            piece = self.coder.decode(_plain(min(PIECE, width - start)), count)
            numbers |= piece.astype(np.uint64) << np.uint64(start)
        return numbers

    def take_number(self) -> int:
        width = int(self.take_plain(1, 7)[0])
        if width > 64:
            raise ValueError(f"a range stream has a number of {width} bits")
        return int(self.take_plain(1, width)[0])

    def close(self) -> None:
        if not self.coder.is_empty():
            raise ValueError("a range stream goes on after its last symbol")
