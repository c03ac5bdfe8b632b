"""Against dahuffman, entropies, and a reader that follows the format's text bit by bit."""

import contextlib
import struct

import numpy as np
import pytest
from dahuffman import HuffmanCodec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from asrcompress.compression import coders
from asrcompress.compression.coders.huffman import canonical, code_lengths, gamma

COUNTS = st.lists(st.integers(1, 1000), min_size=2, max_size=60)


@settings(max_examples=150, deadline=None)
@given(counts=COUNTS)
def test_lengths_are_those_of_dahuffman(counts: list[int]) -> None:
    codec = HuffmanCodec.from_frequencies(dict(enumerate(counts)), eof=0)
    assert code_lengths(counts) == [codec.get_code_table()[symbol][0] for symbol in range(len(counts))]


@settings(max_examples=150, deadline=None)
@given(counts=COUNTS)
def test_the_mean_length_is_within_a_bit_of_the_entropy(counts: list[int]) -> None:
    lengths, share = np.array(code_lengths(counts)), np.array(counts) / sum(counts)
    assert (0.5**lengths).sum() == 1  # Kraft
    entropy = -(share * np.log2(share)).sum()
    assert entropy - 1e-9 <= share @ lengths < entropy + 1


def test_long_codes_are_limited() -> None:
    counts = [1, 1]
    while len(counts) < 50:
        counts.append(counts[-1] + counts[-2])  # Fibonacci: the longest codes that there are
    lengths = np.array(code_lengths(counts))
    assert lengths.max() == 24 and (0.5**lengths).sum() == 1 and (np.diff(lengths) <= 0).all()


def test_codes_are_canonical() -> None:
    order, starts = canonical(np.array([2, 3, 1, 3]))
    assert order.tolist() == [2, 0, 1, 3] and [f"{start:024b}"[:3] for start in starts] == ["000", "100", "110", "111"]


def test_gamma_codes_have_their_lengths() -> None:
    assert [len(gamma(n)) for n in (1, 2, 3, 4, 7, 8)] == [1, 3, 3, 5, 5, 7]
    assert gamma(5) == "00101"


class Reading:
    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 1

    def unpack(self, fields: str) -> tuple[int, ...]:
        found = struct.unpack_from("<" + fields, self.data, self.place)
        self.place += struct.calcsize("<" + fields)
        return found

    def bit_string(self, count: int) -> str:
        part = self.data[self.place : self.place + count]
        self.place += count
        return "".join(f"{byte:08b}" for byte in part)

    def stream(self, count: int) -> list[int]:
        if not count:
            return []
        kind, low = self.unpack("Bq")
        if kind == 0:
            return [low] * count
        text, numbers = self.bit_string(self.unpack("I")[0]), []
        while "1" in text:
            zeros = text.index("1")
            numbers.append(int(text[zeros : 2 * zeros + 1], 2))
            text = text[2 * zeros + 1 :]
        size, symbols, lengths = numbers[0], [low], [8]
        for step in numbers[1:size]:
            symbols.append(symbols[-1] + step)
        for step in numbers[size:]:
            lengths.append(lengths[-1] + (step // 2 if step % 2 else -step // 2))
        code, before, codes = 0, 0, {}
        for length, symbol in sorted(zip(lengths[1:], symbols, strict=True)):
            code = (code + 1 if codes else 0) << length - before
            before = length
            codes[f"{code:0{length}b}"] = symbol
        width, least = self.unpack("Bq")
        blocks = -(-count // 512)
        packed = int.from_bytes(self.data[self.place :][: -(-blocks * width // 8)], "little")
        self.place += -(-blocks * width // 8)
        sizes = [least + (packed >> width * block & (2**width - 1)) for block in range(blocks)]
        text, found, start = self.bit_string(-(-sum(sizes) // 8)), [], 0
        for block, bits_of_block in enumerate(sizes):
            end = start + bits_of_block
            while start < end:
                length = next(n for n in range(1, 25) if text[start : start + n] in codes)
                found.append(codes[text[start : start + length]])
                start += length
            assert start == end and len(found) == min(count, 512 * (block + 1))
        return found


def read(data: bytes, count: int) -> list[int]:
    reading = Reading(data)
    if data[0] == 1:
        symbols = reading.stream(count)
    else:
        dominant, others = reading.unpack("qQ")
        symbols, runs = [], reading.stream(others)
        for run, symbol in zip(runs, reading.stream(others), strict=True):
            symbols += [dominant] * run + [symbol]
        symbols += [dominant] * (count - len(symbols))
    assert reading.place == len(data)
    return symbols


@settings(max_examples=80, deadline=None)
@given(symbols=arrays.arrays(np.int64, st.integers(0, 300), fill=st.sampled_from([0, -7]), elements=st.one_of(
    st.integers(-3, 3), st.integers(-(2**62), 2**62))))
def test_a_reader_after_the_format_reads_it(symbols: np.ndarray) -> None:
    data = coders.encode("huffman", symbols)
    assert read(data, symbols.size) == symbols.tolist()
    np.testing.assert_array_equal(coders.decode("huffman", data, symbols.shape), symbols)


@pytest.mark.parametrize("count", [511, 512, 513, 3000])
@pytest.mark.parametrize("scale", [0.2, 5.0])
def test_a_reader_after_the_format_reads_blocks(count: int, scale: float) -> None:
    symbols = np.random.default_rng(0).laplace(0, scale, count).round().astype(np.int64)
    assert read(coders.encode("huffman", symbols), count) == symbols.tolist()


def test_large_negative_and_sparse_symbols_come_back() -> None:
    alphabet = np.array([-(2**63), -(2**40), -5, 0, 3, 10**12, 2**63 - 1])
    symbols = alphabet[np.random.default_rng(0).integers(0, 7, (40, 50))]
    np.testing.assert_array_equal(coders.decode("huffman", coders.encode("huffman", symbols), (40, 50)), symbols)


def test_one_symbol_takes_a_header() -> None:
    assert len(coders.encode("huffman", np.full((300, 200), -4))) == 10
    assert coders.encode("huffman", np.zeros(0, np.int64)) == b"\1"


@pytest.mark.parametrize("density", [0.02, 0.1, 0.3])
def test_a_dominant_symbol_takes_less_than_a_bit(density: float) -> None:
    """Runs of it reach the entropy of where the others are within 4 %; a code of its own would take a bit for each."""
    symbols = (np.random.default_rng(0).random((1000, 400)) < density).astype(np.int64)
    entropy = -density * np.log2(density) - (1 - density) * np.log2(1 - density)
    assert 8 * len(coders.encode("huffman", symbols)) / symbols.size < 1.04 * entropy


def test_the_length_is_that_of_the_codes() -> None:
    symbols = np.random.default_rng(0).normal(0, 9, (500, 300)).round().astype(np.int64)
    _, counts = np.unique(symbols, return_counts=True)
    codes = np.array(code_lengths(counts.tolist())) @ counts / 8
    assert codes < len(coders.encode("huffman", symbols)) < 1.005 * codes + 100


def test_damage_is_a_value_error_or_other_symbols() -> None:
    rng = np.random.default_rng(0)
    for symbols in (rng.integers(-4, 5, 900), rng.integers(-4, 5, 900) * (rng.random(900) < 0.1)):
        data = coders.encode("huffman", symbols)
        for _ in range(400):
            bad = bytearray(data)
            bad[rng.integers(min(len(bad), 60)) if rng.random() < 0.5 else rng.integers(len(bad))] = rng.integers(256)
            bad = bad[: rng.integers(len(bad) + 1)] if rng.random() < 0.2 else bad
            with contextlib.suppress(ValueError):
                assert coders.decode("huffman", bytes(bad), (30, 30)).shape == (30, 30)
