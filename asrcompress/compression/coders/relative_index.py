"""relative_index: only the nonzero symbols, each with the number of zeros before it, in b bits; Han et al., ICLR 2016.

    u8 b (1 to 16), u64 entries, then the runs of the entries in b bits each as `raw.pack` writes them, the last byte
    filled with zeros; then the symbols of the entries as a `raw` stream, its header included.

An entry is a run of r zeros (0 to 2^b - 1) and then its symbol. A longer run is cut by fillers: a filler is an entry
with r = 2^b - 1 and the symbol 0, so it stands for 2^b zeros, and the range of the raw symbols then holds 0 as well:
k codes of a codebook cost the bits of k + 1. Zeros after the last entry follow from the shape. The encoder takes the b
that costs least; at density p an entry has on average q / (1 - q) fillers, q = (1 - p)^(2^b).
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asrcompress.compression.coders import raw

HEADER = struct.Struct("<BQ")
WIDEST = 16


@dataclass(frozen=True)
class Options:
    """relative_index has none."""


def encode(symbols: NDArray[np.int64], options: Options) -> bytes:
    """The bytes of an array of integers, of any shape, as the module describes them."""
    flat = symbols.ravel()
    places = np.flatnonzero(flat)
    runs = np.diff(places, prepend=-1) - 1
    width = min(range(1, WIDEST + 1), key=lambda b: cost(runs, flat[places], b))
    runs, values = with_fillers(runs, flat[places], width)
    return HEADER.pack(width, len(runs)) + raw.pack(runs.astype(np.uint64), width) + raw.encode(values, raw.Options())


def decode(data: bytes, shape: Sequence[int]) -> NDArray[np.int64]:
    """The int64 array of this shape. Errors: ValueError where the bytes are damaged or hold another number of
    symbols.
    """
    if len(data) < HEADER.size:
        raise ValueError("a relative_index stream is shorter than its header")
    (width, entries), count = HEADER.unpack_from(data), math.prod(shape)
    end = HEADER.size + -(-entries * width // 8)
    if not 1 <= width <= WIDEST or entries > count or end > len(data):
        raise ValueError(f"a relative_index stream of {len(data)} bytes does not hold {entries} of {count} symbols")
    runs = raw.unpack(data[HEADER.size : end], width, entries)
    places = np.cumsum(runs.astype(np.int64) + 1) - 1
    if entries and places[-1] >= count:
        raise ValueError(f"a relative_index stream goes on to symbol {places[-1]} of {count}")
    symbols = np.zeros(count, np.int64)
    symbols[places] = raw.decode(data[end:], (entries,))
    return symbols.reshape(shape)


def cost(runs: NDArray[np.int64], values: NDArray[np.int64], width: int) -> int:
    """Bits of all entries when runs are written in `width` bits.

    Both are vectors with an element for each nonzero symbol.
    """
    fillers = int((runs >> width).sum())
    ends = [*([values.min(), values.max()] if values.size else []), *([0] if fillers else [])]
    return (len(runs) + fillers) * (width + int(max(ends, default=0) - min(ends, default=0)).bit_length())


def with_fillers(runs: NDArray[np.int64], values: NDArray[np.int64],
                 width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The entries: run and symbol, fillers before each run that is too long for `width` bits. All are vectors."""
    ends = np.cumsum((runs >> width) + 1) - 1  # where the nonzero symbols land among the entries
    entries = int(ends[-1]) + 1 if ends.size else 0
    every, symbols = np.full(entries, 2**width - 1), np.zeros(entries, np.int64)
    every[ends], symbols[ends] = runs & (2**width - 1), values
    return every, symbols
