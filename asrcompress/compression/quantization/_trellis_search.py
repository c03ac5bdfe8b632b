"""Search of the codes of `trellis`, and of the step at which they take so many bits or make such an error."""

import functools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

EIGHT = ((0, 2), (7, 5), (1, 3), (6, 4), (2, 0), (5, 7), (3, 1), (4, 6))  # the next state by state and parity
UNGERBOECK = {16: (0o23, 0o4), 32: (0o45, 0o10), 64: (0o103, 0o24), 128: (0o235, 0o126)}  # parity checks (h0, h1)
STATES = 64
LINE = 32       # times the states: values, in C order, after which the state is 0 again
LAGRANGE = 0.35  # squared steps that a bit may cost
MOST = 2**20    # codes are below this
SAMPLE = 2**16  # values by which a step is found, in PIECES pieces
PIECES = 64
CLASSES = 16    # of rows and columns by size, in steps of half an octave
FEW = 16        # rows or columns, too few to tell their size from that of their values
LARGE = 2**12   # larger magnitudes cost the same
LEARNING = 5    # searches, at most, from which it is learned what codes cost
SETTLED = 0.01  # bits a number, the change after which it is
BACKING = 32.0  # codes by which the frequencies of all classes count in each

Codes = NDArray[np.int32]
Floats = NDArray[np.floating]
Classes = NDArray[np.uint8]


@functools.cache
def trellis(states: int) -> NDArray[np.int64]:
    """(states, 2): the next state by state and parity of the code."""
    if states == len(EIGHT):
        return np.array(EIGHT)
    feedback, entry = (check >> 1 for check in UNGERBOECK[states])
    return np.array([[state >> 1 ^ feedback * (state & 1) ^ entry * parity for parity in (0, 1)]
                     for state in range(states)])


@functools.cache
def _origins(states: int) -> NDArray[np.int64]:
    """(states, 2, 2): the two states before each, and the parities that lead from them."""
    after = trellis(states).ravel()
    return np.array([[divmod(int(move), 2) for move in np.flatnonzero(after == state)] for state in range(states)])


def points(codes: NDArray[np.integer], states: int = STATES) -> NDArray[np.int64]:
    """Multiples of the step that codes of any shape stand for."""
    from asrcompress.compression.quantization import _viterbi  # compiled only where it is used

    flat = np.ascontiguousarray(codes, np.int64).ravel()
    return _viterbi.points(flat, LINE * states, trellis(states)).reshape(codes.shape)


def search(values: Floats, bits: Floats, lagrange: float = LAGRANGE, *, states: int = STATES,
           classes: Classes | None = None, line: int = 0) -> Codes:
    """Codes of values (in steps) with the least squared error plus `lagrange` times their bits.

    `bits` are of each magnitude, or of (classes, magnitudes) with the class of each value; beyond the last magnitude
    they stay what they are.
    """
    from asrcompress.compression.quantization import _viterbi

    flat = np.ascontiguousarray(values, np.float32).ravel()
    chosen = np.zeros(flat.size, np.uint8) if classes is None else classes.ravel()
    prices = np.atleast_2d(np.asarray(lagrange * bits, np.float32))
    return _viterbi.search(flat, chosen, prices, line or LINE * states, _origins(states)).reshape(values.shape)


def classes_of(values: Floats) -> Classes:
    """The class of each value, by the size of its row and its column together."""
    squares = np.square(values.reshape(len(values) if values.ndim > 1 else 1, -1), dtype=np.float32)
    mean = float(squares.mean(dtype=np.float64)) if squares.size else 0.0
    variance = float(np.vdot(squares, squares)) / max(1, squares.size) - mean * mean
    size = np.zeros((1, 1), np.float32)
    for axis in (0, 1):
        if squares.shape[axis] >= FEW:
            means = squares.mean(axis, keepdims=True, dtype=np.float64)
            chance = variance / squares.shape[axis] / max(1e-300, float(means.var()))  # share of the spread of means
            size = size + (max(0.0, 1 - chance) * np.log2(means + 1e-30)).astype(np.float32)  # in half octaves
    size -= np.median(size[:: max(1, len(size) // PIECES)]) - CLASSES / 2
    return np.broadcast_to(size, squares.shape).clip(0, CLASSES - 1).astype(np.uint8).reshape(values.shape)


def _counts(codes: Codes, classes: Classes) -> Floats:
    """(classes, magnitudes)"""
    from asrcompress.compression.quantization import _viterbi

    flat = codes.ravel()
    largest = max(int(flat.max(initial=0)), -int(flat.min(initial=0)))
    counts = np.zeros((CLASSES, min(largest, LARGE) + 2))
    _viterbi.count(flat, classes.ravel(), counts)
    return counts


def _error(codes: Codes, values: Floats, step: float, states: int, line: int) -> float:
    """Squared error a number."""
    from asrcompress.compression.quantization import _viterbi

    total = _viterbi.squared_error(codes.ravel(), values.ravel(), step, line, trellis(states))
    return float(total / max(1, values.size))


def _bits(counts: Floats) -> Floats:
    """(classes, magnitudes), with the sign; each class leans on the frequencies of all."""
    whole = counts.sum(0) + 0.5
    leaning = counts + BACKING * whole / whole.sum()
    bits = -np.log2(leaning / leaning.sum(1, keepdims=True))
    bits[:, 1:] += 1
    return bits


def _rate(counts: Floats) -> float:
    """Bits a code within the classes, the entropy after Miller and Madow."""
    each, total = counts.sum(1, keepdims=True), max(1.0, float(counts.sum()))
    bits = -(counts * np.log2(np.maximum(counts, 1) / np.maximum(each, 1))).sum() + counts[:, 1:].sum()
    used = np.count_nonzero(counts) - np.count_nonzero(each)
    return float(bits + used / (2 * math.log(2))) / total


class Sample:
    """Pieces of a tensor, evenly spread, on which steps are tried, and the frequencies of their codes at the last."""

    def __init__(self, values: Floats, states: int = STATES) -> None:
        self.classes, self.states = classes_of(values), states
        self.line = min(SAMPLE // PIECES, LINE * states)
        self.places: NDArray[np.int64] | slice = slice(None)
        if values.size > SAMPLE:
            starts = np.linspace(0, values.size - self.line, PIECES).astype(np.int64)
            self.places = (starts[:, None] + np.arange(self.line)).ravel()
        self.values, self.chosen = values.ravel()[self.places], self.classes.ravel()[self.places]
        self.counts: Floats | None = None

    def learn(self, step: float, rounds: int = 1) -> tuple[float, float]:
        """`at` this step, where the bits of a code become those that the codes before took, so many times."""
        if self.counts is None:
            self.counts = _counts(np.rint(self.values / (2 * step)).astype(np.int32), self.chosen)
        for _ in range(rounds):
            codes, *found = self._searched(step)
            self.counts = _counts(codes, self.chosen)
        return found[0], found[1]

    def at(self, step: float) -> tuple[float, float]:
        """(bits a number, squared error a number)"""
        return self._searched(step)[1:]

    def _searched(self, step: float) -> tuple[Codes, float, float]:
        assert self.counts is not None
        codes = search(self.values / step, _bits(self.counts), states=self.states, classes=self.chosen, line=self.line)
        error = _error(codes, self.values, step, self.states, self.line)
        return codes, _rate(_counts(codes, self.chosen)), error


def quantize(values: Floats, step: float, sample: Sample | None = None) -> tuple[Codes, float, float]:
    """(codes, bits a number, squared error a number), with the bits that the codes of a sample of the values take."""
    sample = sample or Sample(values)
    if sample.counts is None:
        sample.learn(step, LEARNING)
    assert sample.counts is not None
    codes = search(values / step, _bits(sample.counts), states=sample.states, classes=sample.classes)
    error = _error(codes, values, step, sample.states, LINE * sample.states)
    return codes, _rate(_counts(codes, sample.classes)), error


def step_for(values: Floats, *, bits: float = 0.0, error: float = 0.0, sample: Sample | None = None) -> float:
    """The step at which a sample of the values takes `bits` each, or has that squared error each."""
    tried = sample or Sample(values)

    def excess(found: tuple[float, float]) -> float:
        """In bits; it falls by about one with each octave of the step."""
        return found[0] - bits if bits else 0.5 * math.log2(error / max(found[1], 1e-300))

    high = math.log2(4 * float(np.abs(values).max()))
    low = high + 2 - math.log2(MOST)
    deviation = math.sqrt(float(np.square(values, dtype=np.float64).mean()))
    place = math.log2(deviation) + 1 - bits if bits else 0.5 * math.log2(4 * error)
    for _ in range(LEARNING):  # what codes cost moves with the step; then it stays, so that a bracket holds
        place = min(max(place, low), high)
        place += (change := min(1.0, max(-1.0, excess(tried.learn(2.0**place)))))
        if abs(change) < SETTLED:
            break
    return float(2.0 ** _root(lambda octaves: excess(tried.at(2.0**octaves)), low, high, place))


def _root(excess: Callable[[float], float], low: float, high: float, start: float) -> float:
    """Where a falling function is 0 between two places: by its slope, or halfway where that leads outside."""
    place, before, slope = min(max(start, low), high), None, -1.0
    for _ in range(24):
        value = excess(place)
        if abs(value) < 1e-3 or high - low < 1e-4:
            break
        if before is not None and place != before[0]:
            slope = min(-0.1, max(-2.0, (value - before[1]) / (place - before[0])))
        low, high = (place, high) if value > 0 else (low, place)
        before = (place, value)
        place -= value / slope
        if not low < place < high:
            place = (low + high) / 2
    return place
