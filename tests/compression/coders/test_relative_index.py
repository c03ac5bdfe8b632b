"""Against a loop over bit strings, and the number of fillers that geometric gaps have."""

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from asrcompress.compression import coders
from asrcompress.compression.coders.relative_index import cost, with_fillers

SPARSE = arrays.arrays(np.int64, st.integers(0, 400), fill=st.just(0), elements=st.integers(-9, 9))


def read(data: bytes, count: int) -> list[int]:
    """A reader after the format's text, symbol by symbol."""
    width, entries = struct.unpack_from("<BQ", data)
    length = -(-entries * width // 8)
    runs = int.from_bytes(data[9 : 9 + length], "little")
    wide, low = struct.unpack_from("<Bq", data, 9 + length)
    values = int.from_bytes(data[18 + length :], "little")
    symbols: list[int] = []
    for entry in range(entries):
        symbols += [0] * (runs >> entry * width & (2**width - 1))
        symbols.append(low + (values >> entry * wide & (2**wide - 1)))
    return symbols + [0] * (count - len(symbols))


@settings(max_examples=80, deadline=None)
@given(symbols=SPARSE)
def test_a_reader_after_the_format_reads_it(symbols: np.ndarray) -> None:
    data = coders.encode("relative_index", symbols)
    assert read(data, symbols.size) == symbols.tolist()
    np.testing.assert_array_equal(coders.decode("relative_index", data, symbols.shape), symbols)


@pytest.mark.parametrize(("density", "width", "fillers"),
                         [(0.01, 3, 11.9), (0.01, 8, 0.083), (0.05, 4, 0.79), (0.1, 3, 0.76), (0.3, 3, 0.061)])
def test_fillers_are_as_many_as_geometric_gaps_need(density: float, width: int, fillers: float) -> None:
    places = np.flatnonzero(np.random.default_rng(0).random(2_000_000) < density)
    runs, _ = with_fillers(np.diff(places, prepend=-1) - 1, np.ones(len(places), int), width)
    assert len(runs) / len(places) - 1 == pytest.approx(fillers, rel=0.05)


def test_a_filler_takes_a_codeword_of_its_own() -> None:
    """32 codes fit 5 bits; with a gap that is too long, 0 is the 33rd."""
    codes = np.arange(1, 33)
    runs = np.zeros(32, np.int64)
    assert cost(runs, codes, 4) == 32 * (4 + 5)
    runs[7] = 16
    assert cost(runs, codes, 4) == 33 * (4 + 6)
    assert cost(runs, codes, 5) == 32 * (5 + 5)


def test_the_width_is_the_cheapest() -> None:
    symbols = np.random.default_rng(1).integers(1, 33, 40_000) * (np.random.default_rng(2).random(40_000) < 0.1)
    data = coders.encode("relative_index", symbols)
    places = np.flatnonzero(symbols)
    runs = np.diff(places, prepend=-1) - 1
    costs = {width: cost(runs, symbols[places], width) for width in range(1, 17)}
    assert data[0] == min(costs, key=lambda width: costs[width])
    assert len(data) * 8 == pytest.approx(costs[data[0]], abs=18 * 8 + 16)


def test_all_zeros_take_only_headers() -> None:
    assert len(coders.encode("relative_index", np.zeros((400, 300), np.int64))) == 18


def test_damage_is_a_value_error_or_other_symbols() -> None:
    rng = np.random.default_rng(0)
    symbols = rng.integers(-4, 5, 900) * (rng.random(900) < 0.1)
    data = coders.encode("relative_index", symbols)
    for _ in range(2000):
        bad = bytearray(data)
        bad[rng.integers(len(bad))] = rng.integers(256)
        bad = bad[: rng.integers(len(bad) + 1)] if rng.random() < 0.2 else bad
        with contextlib.suppress(ValueError):
            assert coders.decode("relative_index", bytes(bad), (30, 30)).shape == (30, 30)
