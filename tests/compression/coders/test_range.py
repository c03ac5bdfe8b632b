"""Against a reader that follows the format's text symbol by symbol, in Python's integers; and against entropies."""

import contextlib
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from asrcompress.compression import coders
from asrcompress.compression.coders import _ans as ans
from asrcompress.compression.coders import _model as models
from asrcompress.compression.coders import _tables as tables
from asrcompress.compression.coders._search import choose, context_counts
from asrcompress.compression.coders._symbols import Split


def frequencies(weights: list[int]) -> list[int]:
    table = [1 + weight * (2**24 - len(weights)) // max(1, sum(weights)) for weight in weights]
    table[weights.index(max(weights))] += 2**24 - sum(table)
    return table


def decay(scale: int) -> list[int]:
    ratio, q = (8 + scale % 8) << scale // 8, [2**24]
    while len(q) < 4097:
        q.append(q[-1] * ratio // (ratio + 256))
    return q


class Reading:
    """The format's reader."""

    def __init__(self, data: bytes) -> None:
        self.words = [int.from_bytes(data[place : place + 4], "little") for place in range(0, len(data), 4)]
        self.state = 0
        self.refill()
        self.refill()

    def refill(self) -> None:
        if self.words:
            self.state = self.state << 32 | self.words.pop()

    def symbol(self, table: list[int]) -> int:
        if len(table) == 1:
            return 0
        q, below, symbol = self.state % 2**24, 0, 0
        while below + table[symbol] <= q:
            below += table[symbol]
            symbol += 1
        self.state = table[symbol] * (self.state >> 24) + q - below
        if self.state < 2**32:
            self.refill()
        return symbol

    def plain(self, width: int, count: int = 1) -> list[int]:
        numbers = [0] * count
        for start in range(0, width, 8):
            piece = min(8, width - start)
            for place in range(count):
                numbers[place] |= self.symbol([2 ** (24 - piece)] * 2**piece) << start
        return numbers

    def count(self) -> int:
        return self.plain(self.plain(7)[0])[0]

    def signed(self) -> int:
        code = self.count()
        return code // 2 if code % 2 == 0 else -(code + 1) // 2

    def opened(self, tokens: list[int], direct: int, mantissa: int) -> list[int]:
        numbers, widths = list(tokens), [0] * len(tokens)
        for place, token in enumerate(tokens):
            if token >= 2**direct:
                octave, low = divmod(token - 2**direct, 2**mantissa)
                widths[place] = direct + octave - mantissa
                numbers[place] = (2**mantissa + low) << widths[place]
        for width in range(1, max(widths, default=0) + 1):
            places = [place for place in range(len(tokens)) if widths[place] == width]
            for place, more in zip(places, self.plain(width, len(places)), strict=True):
                numbers[place] |= more
        return numbers

    def integers(self, count: int) -> list[int]:
        q, size = decay(self.plain(7)[0]), self.count()
        table = frequencies(q[:size])
        numbers = self.opened([self.symbol(table) for _ in range(count)], 4, 2)
        return [u // 2 if u % 2 == 0 else -(u + 1) // 2 for u in numbers]


def table_of_scale(family: int, scale: int, signed: bool, direct: int, mantissa: int, size: int) -> list[int]:
    q, weights = decay(scale), [0] * max(size, 4096)
    below = {j: 2**48 // (2**24 + q[j]) for j in range(1, 4097, 2)}
    below[-1] = 2**24 - below[1]
    for u in range(2048):
        n = u.bit_length() - 1
        small = u < 2**direct
        token = u if small else 2**direct + (n - direct) * 2**mantissa + (u >> n - mantissa) % 2**mantissa
        k = (u + 1) // 2 if signed else u
        weights[token] += q[k] if family == 0 else below[2 * k + 1] - below[2 * k - 1]
    return frequencies(weights[:size])


def read(data: bytes, shape: tuple[int, ...]) -> list[int]:
    reading = Reading(data)
    base = reading.signed()
    (signed,), (direct,), (mantissa,) = reading.plain(1), reading.plain(4), reading.plain(3)
    size, contexts, first = reading.count(), reading.count(), reading.signed()
    (family,), (by_row,), (by_column,), (axis,) = (reading.plain(width) for width in (2, 1, 1, 2))
    rows, columns = (shape[0], math.prod(shape[1:])) if len(shape) > 1 else (1, shape[0])
    down = reading.integers(rows) if by_row else [0] * rows
    across = reading.integers(columns) if by_column else [0] * columns
    length = shape[0 if axis == 1 else -1] if axis else 1
    apart = math.prod(shape[1:]) if axis == 1 else 1  # of neighbours, in C order
    farthest = max((s for s in (1, 2, 4, 8) if s < length), default=0)
    reach = [s for s in (8, 4, 2, 1) if s <= farthest]
    steps = reading.integers(8 * len(reach)) if axis else []
    if family < 2:
        made = [table_of_scale(family, scale, bool(signed), direct, mantissa, size)
                for scale in reading.plain(7, contexts)]
    else:
        delta, levels = reading.integers(contexts * size), []
        for context in range(contexts):
            part = delta[context * size : (context + 1) * size]
            levels.append([a + b for a, b in zip(part, levels[-1], strict=True)] if levels
                          else list(itertools.accumulate(part)))
        made = [frequencies([round(2 ** (27 - level % 8 / 8)) >> level // 8 for level in row]) for row in levels]
    tokens = [-1] * math.prod(shape)
    for number, stride in enumerate([0, *reach]):
        chosen: list[list[int]] = [[] for _ in range(contexts)]
        for flat in range(len(tokens)):
            place = flat // apart % length
            if (place % (2 * stride) != stride) if stride else farthest and place % (2 * farthest):
                continue
            step = 0
            if stride:
                before = tokens[flat - stride * apart]
                after = tokens[flat + stride * apart] if place + stride < length else before
                step = steps[8 * (number - 1) + min(7, (before + after).bit_length())]
            context = first + down[flat // columns] + across[flat % columns] + step
            chosen[min(contexts - 1, max(0, context))].append(flat)
        for context, places in enumerate(chosen):
            for flat in places:
                tokens[flat] = reading.symbol(made[context])
    numbers = reading.opened(tokens, direct, mantissa)
    assert reading.state == 0 and not reading.words
    return [base + (u if not signed else u // 2 if u % 2 == 0 else -(u + 1) // 2) for u in numbers]


def weights(shape: tuple[int, ...], seed: int = 0, scale: float = 4.0) -> np.ndarray:
    """Integers whose spread differs by row and column, and is alike in neighbours along the last axis."""
    rng = np.random.default_rng(seed)
    spread = np.exp(rng.normal(0, 0.7, (shape[0], *[1] * (len(shape) - 1))) + rng.normal(0, 0.5, (1, *shape[1:-1], 1)))
    return (scale * spread * rng.laplace(0, 1, shape) * (rng.random(shape) < 0.4)).round().astype(np.int64)


@settings(max_examples=60, deadline=None)
@given(symbols=arrays.arrays(np.int64, arrays.array_shapes(min_dims=1, max_dims=3, max_side=6),
                             elements=st.one_of(st.integers(-3, 3), st.integers(-(2**40), 2**40))))
def test_a_reader_after_the_format_reads_small_arrays(symbols: np.ndarray) -> None:
    assert read(coders.encode("range", symbols), symbols.shape) == symbols.ravel().tolist()


@pytest.mark.parametrize(("shape", "scale"), [((40, 24, 3), 4.0), ((60, 30), 0.3), ((700,), 2.0), ((24, 40), 200.0)])
def test_a_reader_after_the_format_reads_weights(shape: tuple[int, ...], scale: float) -> None:
    symbols = weights(shape, scale=scale)
    assert read(coders.encode("range", symbols), shape) == symbols.ravel().tolist()


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("family", [0, 1, 2])
def test_a_reader_after_the_format_reads_every_model(axis: int, family: int) -> None:
    """Models that the search may not choose, made by hand."""
    symbols = weights((9, 5, 4), scale=20.0)
    rng = np.random.default_rng(family)
    contexts = models.Contexts(4, 1, rng.integers(-1, 2, 9), rng.integers(-1, 2, 20), axis,
                               rng.integers(-2, 3, (4 if axis == 1 else 2, 8)))
    split = Split(-1, True, 3, 1)
    size = int(split.tokens(split.unsigned(symbols))[0].max()) + 1
    parameters = rng.integers(0, 60, 4) if family < 2 else rng.integers(0, 80, (4, size))
    data = coders.coder("range").write(symbols, models.Model(split, size, contexts, family, parameters))
    assert read(data, symbols.shape) == symbols.ravel().tolist()
    np.testing.assert_array_equal(coders.decode("range", data, symbols.shape), symbols)


def test_tables_are_the_ones_that_the_coder_uses() -> None:
    """constriction is given floats; that it makes the very integers of the table of them is what the format needs."""
    rng = np.random.default_rng(0)
    for size in (2, 3, 33, 255, 704):
        table = ans.normalized((rng.random(size) ** 8 * 2**20).astype(np.int64))
        assert table.sum() == 2**24 and table.min() >= 1
        symbols = rng.integers(0, size, 500)
        writer = ans.Writer()
        writer.put(symbols, table)
        reading = Reading(writer.words())
        assert [reading.symbol(table.tolist()) for _ in range(500)] == symbols.tolist()
        assert reading.state == 0 and not reading.words


@pytest.mark.parametrize(("shape", "scale"),
                         [((300, 200, 3), 0.3), ((300, 200, 3), 30.0), ((7,), 1.0), ((256, 64), 2.0)])
def test_the_length_is_the_entropy_of_the_model(shape: tuple[int, ...], scale: float) -> None:
    symbols = weights(shape, scale=scale)
    model = choose(symbols, True)
    writer = ans.Writer()
    models.put_model(writer, model)
    tokens, widths = model.split.tokens(model.split.unsigned(symbols))
    counts = context_counts(tokens.astype(np.uint16), model.contexts)
    entropy = float((counts * (24 - np.log2(model.table()))).sum()) + widths.sum()
    side = 8 * len(writer.words())
    assert 8 * len(coders.encode("range", symbols)) <= 1.01 * entropy + 64 + side


@pytest.mark.parametrize("scale", [0.4, 2.0, 20.0])
def test_integers_of_one_law_take_their_entropy(scale: float) -> None:
    symbols = np.random.default_rng(1).laplace(0, scale, (512, 300)).round().astype(np.int64)
    counts = np.unique(symbols, return_counts=True)[1]
    entropy = -float((counts * np.log2(counts / symbols.size)).sum())
    assert 8 * len(coders.encode("range", symbols)) < 1.005 * entropy


def test_logistic_samples_take_what_the_matching_model_says() -> None:
    """Samples of scale 3 have 4.472 bits: section 14's check of the learned prior."""
    symbols = np.random.default_rng(0).logistic(0, 3, 200_000).round().astype(np.int64)
    assert 8 * len(coders.encode("range", symbols)) / symbols.size == pytest.approx(4.472, abs=0.01)


def test_rows_and_neighbours_are_used() -> None:
    symbols = weights((256, 96, 3), scale=1.0)
    assert len(coders.encode("range", symbols)) < 0.98 * len(coders.encode("range", symbols, contexts=False))
    blocks = np.kron(np.random.default_rng(0).random((64, 64)) < 0.1, np.ones((4, 4))).astype(np.int64)
    assert len(coders.encode("range", blocks)) < 0.6 * len(coders.encode("range", blocks, contexts=False))


def test_outliers_cost_their_bits_and_no_table() -> None:
    symbols = np.random.default_rng(0).integers(-3, 4, (100, 50))
    plain = len(coders.encode("range", symbols))
    symbols[3, 3], symbols[70, 2] = 2**40, -(2**50)
    assert len(coders.encode("range", symbols)) < plain + 150


def test_extreme_integers_come_back() -> None:
    symbols = np.array([-(2**63), 2**63 - 1, 0, 2**62, -1, 5])
    np.testing.assert_array_equal(coders.decode("range", coders.encode("range", symbols), (6,)), symbols)


def test_constants_and_nothing_take_few_bytes() -> None:
    assert coders.encode("range", np.zeros((0, 4), np.int64)) == b""
    for constant in (0, -5, 10**6):
        assert len(coders.encode("range", np.full((300, 200), constant))) <= 16


def test_damage_is_a_value_error_or_other_symbols() -> None:
    rng = np.random.default_rng(0)
    for shape, scale in (((30, 20), 3.0), ((20, 12, 3), 1.0), ((5,), 2.0)):
        data = coders.encode("range", weights(shape, scale=scale))
        for _ in range(700):
            bad = bytearray(data)
            bad[rng.integers(len(bad))] = rng.integers(256)
            bad = bad[: rng.integers(len(bad) + 1)] if rng.random() < 0.2 else bad
            with contextlib.suppress(ValueError):
                assert coders.decode("range", bytes(bad), shape).shape == shape


def test_random_bytes_end_in_a_value_error_or_symbols() -> None:
    rng = np.random.default_rng(1)
    for _ in range(700):
        with contextlib.suppress(ValueError):
            assert coders.decode("range", rng.bytes(4 * rng.integers(1, 40)), (6, 5)).shape == (6, 5)


def test_scales_cover_what_weights_have() -> None:
    """The mean magnitude under the Laplace family goes from nearly 0 to hundreds, in steps of at most an eighth."""
    table = tables.parametric(0, np.arange(128), Split(0, False, 8, 3), 256)
    share = table[:, 0] / 2**24
    assert share[0] > 0.96 and share[-1] < 0.01 and (np.diff(share) <= 0).all()
