"""Search of `range`'s encoder for the model under which an array takes the fewest bits. Nothing here is format."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asrcompress.compression.coders import _tables as tables
from asrcompress.compression.coders._contexts import FIRST, LAST, MOST, Contexts, matrix, strides, view, walk
from asrcompress.compression.coders._model import Model
from asrcompress.compression.coders._symbols import Split, Symbols, distinct

SPLITS = ((4, 2), (6, 3), (8, 3))  # direct, mantissa
MANY = (16, 6)  # contexts by place, about
GUESS = 4.0  # bits that a level takes
FEWEST = 256  # symbols for which contexts are tried
THIN, LARGE = 4, 2**17  # of the rows or columns of more symbols, each so many-th is tried
TAIL = 1 / 256  # of the symbols, at either end, share a context
Floats = NDArray[np.floating]
Tokens = NDArray[np.uint16]


def choose(symbols: Symbols, with_contexts: bool) -> Model:
    """The best model that is found."""
    alphabet, index, counts = distinct(symbols.ravel())
    with_contexts = with_contexts and len(alphabet) > 1 and symbols.size >= FEWEST
    split = _split(alphabet, counts, 1 + min(16, symbols.size >> 14) * with_contexts)
    tokens = split.tokens(split.unsigned(alphabet))[0].astype(np.uint16)[index].reshape(symbols.shape)
    candidates = [Contexts()]
    if with_contexts:
        sizes = np.abs(alphabet - np.int64(split.base)).astype(np.float32)[index].reshape(symbols.shape)
        candidates.append(_contexts(tokens, sizes))
    return min((_fitted(tokens, split, one) for one in candidates), key=lambda pair: pair[0])[1]


def _split(alphabet: Symbols, counts: Symbols, contexts: int) -> Split:
    low, middle = int(alphabet[0]), int(counts.argmax())
    if 4 * counts[middle] < counts.sum():  # where a flat peak has its mode is chance
        middle = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))
    base = int(alphabet[middle])
    splits = [Split(base, base > low, *split) for split in SPLITS] + [Split(low, False, *split) for split in SPLITS]

    def bits(split: Split) -> float:
        tokens, widths = split.tokens(split.unsigned(alphabet))
        each = np.bincount(tokens, counts)
        return _entropy(each) + float(counts @ widths) + GUESS * contexts * np.count_nonzero(each)

    return min(splits, key=bits)


def _entropy(counts: NDArray[np.floating] | Symbols) -> float:
    """Bits of symbols that occur so often, each row under its own probabilities."""
    total = counts.sum(-1, keepdims=True)
    return float(-(counts * np.log2(np.maximum(counts, 1) / np.maximum(total, 1))).sum())


def context_counts(tokens: Tokens, contexts: Contexts) -> Symbols:
    """(contexts, tokens)"""
    from asrcompress.compression.coders import _loops  # compiled only where it is used

    seen, size = tokens.reshape(view(tokens.shape, contexts.axis)), int(tokens.max()) + 1
    counts = np.zeros((contexts.total, size), np.int64)
    for start, gap, context in walk(seen, tokens.shape, contexts):
        _loops.count(seen, context, start, gap, counts)
    return counts


def _fitted(tokens: Tokens, split: Split, contexts: Contexts) -> tuple[float, Model]:
    """(bits, model) in the best family; of the tokens alone, as the open bits are the same in all."""
    counts = context_counts(tokens, contexts)
    scales = [(family, tables.fit_scales(counts, family, split)) for family in (tables.LAPLACE, tables.LOGISTIC)]
    found = []
    for family, parameters in [*scales, (tables.LEVELS, tables.fit_levels(counts))]:
        model = Model(split, counts.shape[1], contexts, family, parameters)
        side = tables.integers_bits(tables.steps(parameters)) if family == tables.LEVELS else 7 * len(parameters)
        bits = float((counts * (24 - np.log2(model.table()))).sum())
        found.append((bits + side + _side(contexts), model))
    return min(found, key=lambda pair: pair[0])


def _side(contexts: Contexts) -> float:
    return sum(tables.integers_bits(part.ravel()) for part in (contexts.rows, contexts.columns, contexts.steps)
               if part is not None)


class _Trial(NamedTuple):
    bits: float
    contexts: Contexts
    fineness: float = 4.0  # contexts for a doubling of the surprise
    ratios: tuple[Floats | None, Floats | None] = (None, None)  # of rows, of columns


def _contexts(tokens: Tokens, sizes: Floats) -> Contexts:
    """By rows, columns or both, in many or few contexts; then by neighbours along an axis too, if it helps.

    Rows and columns are told apart by the mean size of their symbols or by the mean surprise: a size is the better
    measure where there are many bits, a surprise where symbols are names rather than amounts.
    """
    information = -np.log2(np.maximum(np.bincount(tokens.ravel()), 1) / tokens.size)
    surprise = (information - information.min()).astype(np.float32)[tokens]
    if not surprise.any():
        return Contexts()
    measured = [(values, _log_ratios(values.reshape(matrix(tokens.shape)))) for values in (surprise, sizes)]
    trials = [_by_place(tokens, (rows, columns), MANY[0]) for _, (rows, columns) in measured]
    values, (rows, columns) = measured[int(trials[1].bits < trials[0].bits)]
    trials += [_Trial(_guess(tokens, Contexts()), Contexts())]
    trials += [_by_place(tokens, ratios, MANY[0]) for ratios in ((rows, None), (None, columns))]
    best = min(trials, key=_bits)
    if best.contexts.total > 1:
        best = min([best, *(_by_place(tokens, best.ratios, many) for many in MANY[1:])], key=_bits)
    along = [_along(tokens, values, best, axis) for axis in ((FIRST, LAST) if tokens.ndim > 1 else (LAST,))]
    return min([best, *along], key=_bits).contexts


def _bits(trial: _Trial) -> float:
    return trial.bits


def _thinned(array: NDArray[Any], axis: int) -> tuple[NDArray[Any], slice, slice]:
    """(array, of which rows, of which columns): some rows of a large one, or some columns if passes go along rows."""
    rows, columns = matrix(array.shape)
    some = slice(None, None, THIN if array.size > LARGE and (columns if axis == FIRST else rows) > 16 * THIN else None)
    if axis == FIRST:
        return np.ascontiguousarray(array.reshape(rows, columns)[:, some]), slice(None), some
    return array[some], some, slice(None)


def _guess(tokens: Tokens, contexts: Contexts) -> float:
    part, rows, columns = _thinned(tokens, contexts.axis)
    counts = context_counts(part, contexts.of(rows, columns))
    return _entropy(counts) * tokens.size / part.size + GUESS * np.count_nonzero(counts) + _side(contexts)


def _log_ratios(values: Floats) -> tuple[Floats, Floats]:
    """log2 of the mean of each row, and of each column, over that of all, drawn to 0 as far as it is chance."""
    from asrcompress.compression.coders import _loops

    rows, columns, variance = _loops.moments(values)
    mean = float(rows.mean())

    def ratios(means: Floats) -> Floats:
        chance = variance * len(means) / values.size / max(1e-30, float(means.var()))
        return max(0.0, 1 - chance) * np.log2((means + mean / 64) / mean)

    return ratios(rows), ratios(columns)


def _by_place(tokens: Tokens, ratios: tuple[Floats | None, Floats | None], many: int) -> _Trial:
    """Contexts in equal steps of the sum of both ratios; rare extremes share one."""
    spread = math.sqrt(sum(float(part.var()) for part in ratios if part is not None))
    fineness = min(32.0, many / max(1e-9, 5 * spread))
    rows, columns = (None if part is None else np.rint(fineness * part).astype(np.int64) for part in ratios)
    histogram, low = np.ones(1), 0
    for part in (rows, columns):
        if part is not None:
            histogram, low = np.convolve(histogram, np.bincount(part - part.min())), low + int(part.min())
    below = np.cumsum(histogram) / histogram.sum()
    first, last = (int(np.searchsorted(below, share)) for share in (TAIL, 1 - TAIL))
    contexts = Contexts(min(MOST, last - first + 1), -low - first, rows, columns)
    return _Trial(_guess(tokens, contexts), contexts, fineness, ratios)


def _along(tokens: Tokens, measure: Floats, trial: _Trial, axis: int) -> _Trial:
    """The contexts moved by what neighbours along the axis say of the measure, beyond what the place says."""
    from asrcompress.compression.coders import _loops

    part, rows, columns = _thinned(tokens, axis)
    seen, values = part.reshape(view(part.shape, axis)), _thinned(measure, axis)[0].reshape(view(part.shape, axis))
    there = trial.contexts.of(rows, columns)
    places = next(walk(part.reshape(1, -1, 1), part.shape, there)).contexts.reshape(seen.shape)
    means = _loops.means_by_context(values, places, there.total)
    reach, small = strides(tokens.shape, axis), 16 * float(values.mean())  # as much as to trust few symbols little
    steps = np.zeros((len(reach), 8), np.int64)
    for number, stride in enumerate(reach):
        found, usual = _loops.sums_by_class(seen, values, places, means, stride)
        steps[number] = np.rint(trial.fineness * np.log2((found + small) / (usual + small)))
    down, up = -min(0, int(steps.min(initial=0))), max(0, int(steps.max(initial=0)))
    total = min(MOST, trial.contexts.total + down + up)
    contexts = trial.contexts._replace(total=total, first=trial.contexts.first + down, axis=axis, steps=steps)
    return _Trial(_guess(tokens, contexts), contexts, trial.fineness)
