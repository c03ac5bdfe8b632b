"""Against bit strings that Python's integers write."""

import numpy as np
import pytest

from asrcompress.compression import coders
from asrcompress.compression.coders.raw import CHUNK, pack, unpack


@pytest.mark.parametrize("width", [1, 2, 3, 5, 7, 8, 11, 16, 33])
def test_packing_is_one_long_integer(width: int) -> None:
    numbers = np.random.default_rng(width).integers(0, 2**width, 37, dtype=np.uint64)
    whole = sum(int(number) << (width * index) for index, number in enumerate(numbers))
    assert pack(numbers, width) == whole.to_bytes(-(-37 * width // 8), "little")
    np.testing.assert_array_equal(unpack(pack(numbers, width), width, 37), numbers)


@pytest.mark.parametrize("width", [1, 5, 63])
def test_packing_in_parts_is_one_long_integer_too(width: int) -> None:
    numbers = np.random.default_rng(width).integers(0, 2**width, 2 * CHUNK + 13, dtype=np.uint64)
    bits_of = "".join(f"{int(number):0{width}b}" for number in numbers[::-1])
    assert pack(numbers, width) == int(bits_of, 2).to_bytes(-(-len(bits_of) // 8), "little")
    np.testing.assert_array_equal(unpack(pack(numbers, width), width, len(numbers)), numbers)


@pytest.mark.parametrize(("low", "high", "width"),
                         [(0, 0, 0), (5, 5, 0), (-1, 0, 1), (-7, 7, 4), (0, 255, 8), (-127, 127, 8)])
def test_width_is_the_fewest_bits_of_the_range(low: int, high: int, width: int) -> None:
    symbols = np.array([low, high] * 20)
    data = coders.encode("raw", symbols)
    assert data[0] == width and len(data) == 9 + -(-40 * width // 8)
    np.testing.assert_array_equal(coders.decode("raw", data, (40,)), symbols)


def test_a_stream_of_another_length_is_refused() -> None:
    data = coders.encode("raw", np.arange(10))
    for bad in (b"", data[:5], data[:-1], data + b"x"):
        with pytest.raises(ValueError, match="raw stream"):
            coders.decode("raw", bad, (10,))
