"""Tables of frequencies for `_ans`: of two families with a scale, of integers, of stored levels. Integers only.

Scale s, 0 to 127, is B = (8 + s mod 8) 2^floor(s / 8). With q[0] = 2^24 and q[j+1] = floor(q[j] B / (B + 256)) the
weight of magnitude k, 0 to 2047, is q[k] for the Laplace (two-sided geometric) family; for the discretised logistic it
is F(2k+1) - F(2k-1), where F(j) = floor(2^48 / (2^24 + q[j])) and F(-1) = 2^24 - F(1). The magnitude of a number u is
ceil(u / 2) if the split is signed, else u. The weight of a token is the sum over its numbers below 2048.
The table of *integers* is simpler: the weight of token t is q[t].

Level l, 0 to 191, is the weight floor(round(2^(27 - (l mod 8) / 8)) / 2^floor(l / 8)): a probability of 2^(-l/8).
The weights of all tokens become frequencies by `_ans.normalized`.
"""

import functools
import math

import numpy as np
from numpy.typing import NDArray

from asrcompress.compression.coders._ans import PRECISION, Reader, Table, Writer, normalized
from asrcompress.compression.coders._symbols import Split, Symbols

SCALES, REACH, ONE = 128, 2048, 2**24
LAPLACE, LOGISTIC, LEVELS = 0, 1, 2
ABSENT, UNSEEN = 191, 0.3  # the highest level; how often a token counts that a context never has
EIGHTHS = np.array([134217728, 123078199, 112863206, 103496017, 94906266, 87029429, 79806339, 73182735])
SMALL = Split(0, True, 4, 2)  # how the integers that describe a model are written


@functools.cache
def _weights(family: int) -> NDArray[np.int64]:
    """(scales, magnitudes)."""
    scale = np.arange(SCALES)
    ratio = (8 + scale % 8) << (scale // 8)
    powers = [np.full(SCALES, ONE)]
    for _ in range(2 * REACH):
        powers.append(powers[-1] * ratio // (ratio + 256))
    q = np.stack(powers, 1)
    if family == LAPLACE:
        return q[:, :REACH]
    below = ONE**2 // (ONE + q[:, 1::2])  # F(1), F(3), ...
    return np.diff(below, axis=1, prepend=ONE - below[:, :1])


def parametric(family: int, scales: Symbols, split: Split, size: int) -> Table:
    """(scales, tokens): frequencies of tokens 0 to size - 1."""
    numbers = np.arange(REACH, dtype=np.uint64)
    tokens = split.tokens(numbers)[0]
    magnitudes = ((numbers + np.uint64(1)) >> np.uint64(1) if split.signed else numbers).astype(np.int64)
    weights = np.zeros((len(scales), max(size, int(tokens[-1]) + 1)), np.int64)
    weights[:, : tokens[-1] + 1] = np.add.reduceat(_weights(family)[np.asarray(scales)[:, None], magnitudes],
                                                   np.searchsorted(tokens, np.arange(tokens[-1] + 1)), axis=1)
    return normalized(weights[:, :size])


def of_levels(levels: Symbols) -> Table:
    return normalized(EIGHTHS[levels % 8] >> (levels // 8))


def bits_of(counts: NDArray[np.int64], table: Table) -> NDArray[np.float64]:
    """The length of symbols that occur so often, under each row of the table: (..., rows of it)."""
    return counts @ (PRECISION - np.log2(table)).T


def fit_scales(counts: NDArray[np.int64], family: int, split: Split) -> Symbols:
    """The scale for each row of counts (contexts, tokens) under which it is shortest."""
    return bits_of(counts, _every_scale(family, split, counts.shape[1])).argmin(1)


@functools.lru_cache(maxsize=8)
def _every_scale(family: int, split: Split, size: int) -> Table:
    return parametric(family, np.arange(SCALES), split, size)


def fit_levels(counts: NDArray[np.int64]) -> Symbols:
    """(contexts, tokens): nearest to the probabilities, or as the row before where the step costs more than it saves.

    With weights near probabilities the length is sum(-n log2 w) + N log2 sum(w), about sum(-n log2 w + N w / ln 2).
    """
    levels = np.empty(counts.shape, np.int64)
    for row, n in enumerate(counts):
        total = max(1, n.sum())
        nearest = np.rint(-8 * np.log2(np.maximum(n, UNSEEN) / total)).clip(0, ABSENT).astype(np.int64)
        before = levels[row - 1] if row else nearest
        costs = [n * (level / 8) + total * 2.0 ** (-level / 8) / math.log(2) for level in (nearest, before)]
        saved = costs[1] - costs[0] > 2 + 2 * np.log2(1 + np.abs(nearest - before))
        levels[row] = np.where(saved, nearest, before)
    return levels


def steps(levels: Symbols) -> Symbols:
    """Each level minus the one of the row before; in the first row, of the token before."""
    return np.concatenate([np.diff(levels[0], prepend=0), np.diff(levels, axis=0).ravel()])


def put_levels(writer: Writer, levels: Symbols) -> None:
    put_integers(writer, steps(levels))


def take_levels(reader: Reader, contexts: int, size: int) -> Symbols:
    levels = take_integers(reader, contexts * size).reshape(contexts, size)
    levels[0] = np.cumsum(levels[0])
    levels = np.cumsum(levels, axis=0)
    if levels.min() < 0 or levels.max() > ABSENT:
        raise ValueError("a range stream has a table of impossible levels")
    return levels


def _geometric(size: int) -> Table:
    """(scales, tokens): the weight of token t is q[t]; as tokens grow with the logarithm, so do rare integers' bits."""
    return normalized(_weights(LAPLACE)[:, :size])


def integers_bits(integers: Symbols) -> float:
    """What `put_integers` takes."""
    tokens, widths = SMALL.tokens(SMALL.unsigned(integers))
    counts = np.bincount(tokens, minlength=1)
    return 18 + float(bits_of(counts, _geometric(len(counts))).min() + widths.sum())


def put_integers(writer: Writer, integers: Symbols) -> None:
    """plain: 7 bits scale; count: tokens in use; the tokens; the bits that they leave open."""
    numbers = SMALL.unsigned(integers)
    tokens, widths = SMALL.tokens(numbers)
    counts = np.bincount(tokens, minlength=1)
    table = _geometric(len(counts))
    scale = bits_of(counts, table).argmin()
    writer.put_plain(np.array([scale], np.uint64), 7)
    writer.put_number(len(counts))
    writer.put(tokens, table[scale])
    put_open_bits(writer, numbers, widths)


def take_integers(reader: Reader, count: int) -> Symbols:
    scale = int(reader.take_plain(1, 7)[0])
    size = token_count(reader.take_number(), SMALL)
    tokens = reader.take(count, _geometric(size)[scale])
    return SMALL.symbols(take_open_bits(reader, tokens, SMALL))


def token_count(size: int, split: Split) -> int:
    """`size` if the split can have so many tokens."""
    if not 1 <= size <= (1 << split.direct) + ((64 - split.direct) << split.mantissa):
        raise ValueError(f"a range stream has {size} tokens")
    return size


def put_open_bits(writer: Writer, numbers: NDArray[np.uint64], widths: Symbols) -> None:
    """What the tokens leave open, numbers with 1 open bit first, then those with 2, and so on."""
    for width in range(1, int(widths.max(initial=0)) + 1):
        writer.put_plain(numbers[widths == width] & np.uint64(2**width - 1), width)


def take_open_bits(reader: Reader, tokens: NDArray[np.integer], split: Split) -> NDArray[np.uint64]:
    """The numbers of tokens, the open bits of which are read."""
    starts, widths = split.starts(np.arange(int(tokens.max(initial=0)) + 1))
    numbers, wide = starts[tokens], widths[tokens]
    for width in range(1, int(wide.max(initial=0)) + 1):
        where = np.flatnonzero(wide == width)
        numbers[where] |= reader.take_plain(len(where), width)
    return numbers
