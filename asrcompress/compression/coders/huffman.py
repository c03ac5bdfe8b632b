"""huffman: canonical Huffman codes, of which only the lengths are stored; of a dominant symbol the runs are coded.

    u8 1, then a stream of all symbols in C order; or, where one symbol is most of the array and it takes fewer bytes:
    u8 2, i64 that symbol d, u64 count m of the others, a stream of m runs (how many d before each other symbol), a
    stream of the m others. The d after the last of them follow from the shape. Integers are little-endian.

    A stream of n symbols, nothing for n = 0:
    u8 0, i64 symbol: all n are this one. Or
    u8 1, i64 smallest symbol, u32 bytes of the table, the table, a `raw` stream of the lengths in bits of the blocks
    (each of 512 symbols, the last of the rest), then the blocks' bits, without gaps, the most significant bit of a
    byte first, the last byte filled with zeros.

    The table, bits as in the blocks: Elias gamma numbers (k zeros, then the k + 1 bits of the number): the count of
    distinct symbols; each symbol minus the one before; then for each the length of its code, the first against 8, the
    others against the one before, as 1 + 2d for d >= 0 and -2d otherwise. Lengths are 1 to 24 and a full code. The
    codes are canonical: shorter first, equal lengths in the order of the symbols, each the one before plus 1, with
    zeros appended where the length grows; the first is all zeros.

Huffman, Proc. IRE 1952. The blocks are decoded side by side, a symbol of each at a time.
"""

import heapq
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asrcompress.compression.coders import raw
from asrcompress.compression.coders._symbols import distinct

Symbols = NDArray[np.int64]
BLOCK, LONGEST, FIRST_LENGTH = 512, 24, 8
CODED, SINGLE, RUNS = struct.Struct("<BqI"), struct.Struct("<Bq"), struct.Struct("<BqQ")


@dataclass(frozen=True)
class Options:
    """huffman has none."""


def encode(symbols: Symbols, options: Options) -> bytes:
    """The bytes of an array of integers, of any shape, as the module describes them."""
    flat = symbols.ravel()
    data = b"\1" + _stream(flat)
    alphabet, _, counts = distinct(flat)
    if 2 * counts.max(initial=0) > flat.size:
        dominant = alphabet[counts.argmax()]
        places = np.flatnonzero(flat != dominant)
        runs = _stream(np.diff(places, prepend=-1) - 1) + _stream(flat[places])
        data = min(data, RUNS.pack(2, dominant, len(places)) + runs, key=len)
    return data


def decode(data: bytes, shape: Sequence[int]) -> Symbols:
    """The int64 array of this shape. Errors: ValueError where the bytes are damaged or hold another number of
    symbols.
    """
    count = math.prod(shape)
    try:
        if data[0] == 1:
            flat, end = _unstream(data, 1, count)
        else:
            mode, dominant, others = RUNS.unpack_from(data)
            if mode != 2 or others > count:
                raise ValueError(f"a huffman stream of kind {mode} with {others} of {count} symbols")
            runs, end = _unstream(data, RUNS.size, others)
            values, end = _unstream(data, end, others)
            flat = np.full(count, dominant, np.int64)
            flat[_places(runs, count)] = values
    except (IndexError, struct.error, OverflowError) as error:
        raise ValueError(f"a huffman stream is cut short or damaged ({error})") from None
    if end != len(data):
        raise ValueError(f"a huffman stream of {len(data)} bytes ends after {end}")
    return flat.reshape(shape)


def _places(runs: Symbols, count: int) -> Symbols:
    if runs.size and not 0 <= runs.min() <= runs.max() < count:
        raise ValueError(f"a huffman stream has runs of {runs.min()} to {runs.max()} in {count} symbols")
    places = np.cumsum(runs + 1) - 1
    if runs.size and places[-1] >= count:
        raise ValueError(f"a huffman stream goes on to symbol {places[-1]} of {count}")
    return places


def code_lengths(counts: Sequence[int]) -> list[int]:
    """The bits of each symbol's code, at most 24: counts are halved until it is so. Ties as a heap of symbols has."""
    heap = [(int(count), leaf, leaf) for leaf, count in enumerate(counts)]  # count, smallest leaf popped first, node
    heapq.heapify(heap)
    parents = [0] * (2 * len(heap) - 1)
    for node in range(len(heap), len(parents)):
        first, second = heapq.heappop(heap), heapq.heappop(heap)
        parents[first[2]] = parents[second[2]] = node
        heapq.heappush(heap, (first[0] + second[0], first[1], node))
    depths = [0] * len(parents)
    for node in range(len(parents) - 2, -1, -1):
        depths[node] = depths[parents[node]] + 1
    lengths = depths[: len(counts)]
    return lengths if max(lengths) <= LONGEST else code_lengths([(int(count) + 1) // 2 for count in counts])


def canonical(lengths: NDArray[np.int64]) -> tuple[Symbols, Symbols]:
    """(order, starts): symbols in the order of their codes, and each one's code followed by zeros, as 24 bits."""
    order = np.argsort(lengths, kind="stable")
    spans = np.left_shift(1, LONGEST - lengths[order])
    if spans.sum() != 2**LONGEST:
        raise ValueError("a huffman table is not a full code")
    return order, np.cumsum(spans) - spans


def gamma(number: int) -> str:
    """The Elias gamma code of a number from 1 on: 2 floor(log2 n) + 1 bits."""
    return "0" * (number.bit_length() - 1) + f"{number:b}"


def _ungamma(table: bytes) -> Iterator[int]:
    text, place = "".join(f"{byte:08b}" for byte in table), 0
    while (one := text.find("1", place)) >= 0 and (end := 2 * one - place + 1) <= len(text):
        yield int(text[one:end], 2)
        place = end


def _write_table(alphabet: Symbols, lengths: Symbols) -> bytes:
    steps = np.diff(lengths, prepend=FIRST_LENGTH)
    numbers = [len(alphabet), *np.diff(alphabet.astype(object)), *np.where(steps < 0, -2 * steps, 2 * steps + 1)]
    text = "".join(gamma(int(number)) for number in numbers)
    return int(text + "0" * (-len(text) % 8), 2).to_bytes(-(-len(text) // 8), "big")


def _read_table(table: bytes, low: int, most: int) -> tuple[Symbols, Symbols]:
    numbers = _ungamma(table)
    size = next(numbers, 0)
    if not 2 <= size <= most:
        raise ValueError(f"a huffman table of {size} symbols for {most}")
    rest = [number for number, _ in zip(numbers, range(2 * size - 1), strict=False)]
    if len(rest) != 2 * size - 1:
        raise ValueError("a huffman table is cut short")
    alphabet = np.cumsum(np.array([low, *rest[: size - 1]], object)).astype(np.int64)
    steps = [-(number // 2) if number % 2 == 0 else number // 2 for number in rest[size - 1 :]]
    lengths = FIRST_LENGTH + np.cumsum(np.array(steps, object))
    if not 1 <= lengths.min() <= lengths.max() <= LONGEST:
        raise ValueError(f"a huffman table has lengths of {lengths.min()} to {lengths.max()}")
    return alphabet, lengths.astype(np.int64)


def _stream(flat: Symbols) -> bytes:
    alphabet, index, counts = distinct(flat)
    if len(alphabet) < 2:
        return SINGLE.pack(0, alphabet[0]) if flat.size else b""
    lengths = np.array(code_lengths(counts.tolist()), np.int64)
    order, starts = canonical(lengths)
    codes = np.empty_like(starts)
    codes[order] = starts
    each = lengths[index]
    sizes = np.add.reduceat(each, np.arange(0, len(each), BLOCK))
    table = _write_table(alphabet, lengths)
    return CODED.pack(1, alphabet[0], len(table)) + table + raw.encode(sizes, raw.Options()) + _bits(codes[index], each)


def _bits(starts: Symbols, lengths: Symbols) -> bytes:
    """The first `lengths` of the 24 bits of each code, one after the other; the bits after them are zero."""
    ends = np.cumsum(lengths)
    word, offset = np.divmod(ends - lengths, 32)
    pairs = starts.astype(np.uint64) << (64 - LONGEST - offset).astype(np.uint64)  # two words of 32 bits
    total = int(ends[-1])
    words = (np.bincount(word, pairs >> np.uint64(32), total // 32 + 2)  # no two share a bit, so that sums are ors
             + np.bincount(word + 1, pairs & np.uint64(2**32 - 1), total // 32 + 2))
    return words.astype(">u4").tobytes()[: -(-total // 8)]


def _unstream(data: bytes, start: int, count: int) -> tuple[Symbols, int]:
    """(`count` symbols, where the stream ends)."""
    if not count:
        return np.zeros(0, np.int64), start
    if data[start] == 0:
        return np.full(count, SINGLE.unpack_from(data, start)[1], np.int64), start + SINGLE.size
    kind, low, length = CODED.unpack_from(data, start)
    start += CODED.size
    alphabet, lengths = _read_table(data[start : start + length], low, count)
    start += length
    blocks = -(-count // BLOCK)
    end = start + raw.HEADER.size + -(-blocks * data[start] // 8)
    sizes = raw.decode(data[start:end], (blocks,))
    if kind != 1 or not 0 <= sizes.min() <= sizes.max() <= BLOCK * LONGEST or sizes.sum() > 8 * (len(data) - end):
        raise ValueError("a huffman stream has blocks that it does not hold")
    stop = end + -(-int(sizes.sum()) // 8)
    return alphabet[_unblock(data[end:stop], sizes, lengths, count)], stop


def _unblock(data: bytes, sizes: Symbols, lengths: Symbols, count: int) -> Symbols:
    """The index of each symbol in the alphabet, all blocks side by side."""
    order, starts = canonical(lengths)
    steps = np.unique(lengths)  # of the lengths that there are: the first code, and the place of its symbol in `order`
    ranks = np.searchsorted(lengths[order], steps)
    firsts, shifts = starts[ranks], LONGEST - steps
    bytes_ = np.frombuffer(data + bytes(8), np.uint8).astype(np.int64)
    windows = bytes_[:-3] << 24 | bytes_[1:-2] << 16 | bytes_[2:-1] << 8 | bytes_[3:]  # 32 bits from each byte on
    place, found = np.cumsum(sizes) - sizes, np.empty((min(BLOCK, count), len(sizes)), np.int64)
    for row in found:
        np.minimum(place, 8 * len(data), out=place)  # the last block may be through
        window = windows[place >> 3] >> (8 - (place & 7)) & (2**LONGEST - 1)
        which = np.searchsorted(firsts, window, "right") - 1
        row[:] = ((window - firsts[which]) >> shifts[which]) + ranks[which]
        place += steps[which]
    index = order[found.T.ravel()[:count]]
    if (np.add.reduceat(lengths[index], np.arange(0, count, BLOCK)) != sizes).any():
        raise ValueError("a huffman block has another length than it says")
    return index
