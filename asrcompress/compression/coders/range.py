"""range: coding to the entropy of a model with integer tables, by asymmetric numeral systems (the range coder's kin).

    u32 words, little-endian, that `_ans` reads from the last to the first; none for an array of no symbols. A plain
    number of w bits is read 8 bits at a time, the lowest first, each under a table of equal frequencies; of several
    plain numbers the lowest 8 bits of all, then the next of all. A *count* is its length in 7 plain bits, then it. A
    *signed count* c is the count 2c for c >= 0, -2c - 1 otherwise. *Integers* are described below. In this order:

    signed count: base b; plain: 1 bit signed, 4 direct (at most 8), 3 mantissa (at most direct)
    count: A, the tokens in use; count: K, the contexts, 1 to 64; signed count: first
    plain: 2 bits family (0 Laplace, 1 logistic, 2 levels), 1 by row, 1 by column, 2 axis (0 none, 1 first, 2 last)
    integers, if by row: one for each row; then, if by column: one for each column
    integers, if there is an axis: 8 for each pass after the first
    families 0 and 1: plain, 7 bits each: a scale for each context
    family 2: K A integers: each level minus that of the same token in the context before; in the first context minus
        that of the token before, the first of all as it is
    the tokens, pass by pass, in each pass by context, in each context in C order
    the open bits: of all tokens that leave 1 bit open, then of those that leave 2, ..., each time in C order

    Symbols. The number of a symbol x is u = x - b modulo 2^64; or if signed, with d = x - b as a 64-bit integer,
    u = 2d for d >= 0 and -2d - 1 otherwise. A number below D = 2^direct is a token. For a larger one with
    2^n <= u < 2^(n+1) it is D + (n - direct) 2^mantissa + m, where m are the `mantissa` bits after the leading one, and
    the n - mantissa bits after those are open.

    Contexts. The array is a matrix: its first axis, and all others; with one axis or none, a single row. The context of
    a symbol is first + row + column + step, but at least 0 and at most K - 1; row and column are the integers of its
    place (0 if there are none), none of the four beyond +-4096. Without an axis there is one pass and step is 0. Along
    an axis of N places, S the largest power of 2 below N and at most 8, the first pass takes the places 0, 2S, 4S, ...
    with step 0; the next ones, for s = S, S/2, ..., 1, take the places s, 3s, 5s, .... There the neighbours, whose
    tokens are known, are s before and s after (where the axis ends earlier, the one before once more), and with t the
    sum of both tokens step is number min(7, bits of t) of the pass's 8. With N = 1 there is the first pass only.

    Integers: plain: 7 bits scale; count: tokens in use; the tokens under one table; their open bits. b = 0, signed,
    direct 4, mantissa 2; the table, like all others, is made in `_tables`.

Contexts of magnitudes are DeepCABAC's idea (Wiedemann et al., IEEE JSTSP 2020); here whole passes are decoded at once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asrcompress.compression.coders import _tables as tables
from asrcompress.compression.coders._ans import Reader, Writer
from asrcompress.compression.coders._contexts import view, walk
from asrcompress.compression.coders._model import Model, put_model, take_model
from asrcompress.compression.coders._search import choose

Symbols = NDArray[np.int64]


@dataclass(frozen=True)
class Options:
    """`contexts` of rows, columns and neighbours are tried; false: the models without contexts only, faster."""

    contexts: bool = True


def encode(symbols: Symbols, options: Options) -> bytes:
    """The symbols under the best model that is found; nothing for no symbols."""
    return write(symbols, choose(symbols, options.contexts)) if symbols.size else b""


def write(symbols: Symbols, model: Model) -> bytes:
    """The symbols under a model, whose tokens must suffice for them."""
    from asrcompress.compression.coders import _loops  # compiled only where it is used

    writer = Writer()
    put_model(writer, model)
    numbers = model.split.unsigned(symbols)
    tokens, widths = model.split.tokens(numbers)
    seen, table = tokens.astype(np.uint16).reshape(view(symbols.shape, model.contexts.axis)), model.table()
    for start, gap, context in walk(seen, symbols.shape, model.contexts):
        counts = np.bincount(context.ravel(), minlength=len(table))
        grouped = _loops.group(seen, context, start, gap, np.cumsum(counts) - counts)
        for chosen, frequencies in zip(np.split(grouped, np.cumsum(counts)[:-1]), table, strict=True):
            writer.put(chosen, frequencies)
    tables.put_open_bits(writer, numbers.ravel(), widths.ravel())
    return writer.words()


def decode(data: bytes, shape: Sequence[int]) -> Symbols:
    """The int64 array of this shape. Errors: ValueError where the bytes are damaged or hold another number of
    symbols.
    """
    from asrcompress.compression.coders import _loops

    count = math.prod(shape)
    reader = Reader(data)
    if not count:
        reader.close()
        return np.zeros(shape, np.int64)
    model = take_model(reader, shape)
    table, tokens = model.table(), np.zeros(view(shape, model.contexts.axis), np.uint16)
    for start, gap, context in walk(tokens, shape, model.contexts):
        counts = np.bincount(context.ravel(), minlength=len(table))
        drawn = [reader.take(int(n), frequencies) for n, frequencies in zip(counts, table, strict=True)]
        _loops.ungroup(np.concatenate(drawn), context, start, gap, np.cumsum(counts) - counts, tokens)
    numbers = tables.take_open_bits(reader, tokens.ravel(), model.split)
    reader.close()
    return model.split.symbols(numbers).reshape(shape)
