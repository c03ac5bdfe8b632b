"""raw: every symbol in the same number of bits, the fewest that hold the range of the array.

    u8 width (0 to 63), i64 smallest symbol, then (symbol - smallest) in `width` bits each, least significant bit first,
    little-endian, the last byte filled with zeros. Width 0 is an array of one value.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HEADER = struct.Struct("<Bq")
CHUNK = 2**14  # numbers that are packed at a time, whole bytes: bounds the memory


@dataclass(frozen=True)
class Options:
    """raw has none."""


def encode(symbols: NDArray[np.int64], options: Options) -> bytes:
    """The bytes of an array of integers, of any shape, as the module describes them. Errors: ValueError where they
    span more than 63 bits.
    """
    low, high = (int(symbols.min()), int(symbols.max())) if symbols.size else (0, 0)
    if high - low >= 2**63:
        raise ValueError("symbols span more than 63 bits")
    width = (high - low).bit_length()
    return HEADER.pack(width, low) + pack((symbols.ravel() - low).astype(np.uint64), width)


def decode(data: bytes, shape: Sequence[int]) -> NDArray[np.int64]:
    """The int64 array of this shape. Errors: ValueError where the bytes are damaged or hold another number of
    symbols.
    """
    if len(data) < HEADER.size:
        raise ValueError("a raw stream is shorter than its header")
    width, low = HEADER.unpack_from(data)
    count = math.prod(shape)
    if width > 63 or len(data) != HEADER.size + -(-count * width // 8):
        raise ValueError(f"a raw stream of {len(data)} bytes does not hold {count} symbols of {width} bits")
    return (unpack(data[HEADER.size :], width, count).astype(np.int64) + low).reshape(shape)


def pack(numbers: NDArray[np.uint64], width: int) -> bytes:
    """A vector of integers below 2^width as a bit string, least significant bit first."""
    if width in (8, 16, 32):
        return numbers.astype(f"<u{width // 8}").tobytes()
    places = np.arange(width, dtype=np.uint64)
    return b"".join(
        np.packbits(((numbers[start : start + CHUNK, None] >> places) & np.uint64(1)).astype(np.uint8),
                    bitorder="little").tobytes()
        for start in range(0, len(numbers), CHUNK))


def unpack(data: bytes, width: int, count: int) -> NDArray[np.uint64]:
    """The vector of `count` integers that `pack` wrote; `data` must hold them."""
    if width in (8, 16, 32):
        return np.frombuffer(data, f"<u{width // 8}", count).astype(np.uint64)
    numbers, places = np.zeros(count, np.uint64), np.arange(width, dtype=np.uint64)
    for start in range(0, count if width else 0, CHUNK):
        part = min(CHUNK, count - start)
        stream = np.frombuffer(data, np.uint8, -(-part * width // 8), start * width // 8)
        bits = np.unpackbits(stream, count=part * width, bitorder="little").reshape(part, width)
        numbers[start : start + part] = (bits.astype(np.uint64) << places).sum(1, dtype=np.uint64)
    return numbers
