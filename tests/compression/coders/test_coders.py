"""What holds for every coder, those of later files included."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from asrcompress.compression import coders
from asrcompress.errors import UserError

CODERS = coders.names()
SYMBOLS = arrays.arrays(np.int64, arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9),
                        elements=st.one_of(st.integers(-3, 3), st.just(0), st.integers(-(2**20), 2**20)))


@pytest.mark.parametrize("name", CODERS)
@settings(max_examples=60, deadline=None)
@given(symbols=SYMBOLS)
def test_what_comes_back_is_what_went_in(name: str, symbols: np.ndarray) -> None:
    data = coders.encode(name, symbols)
    again = coders.decode(name, data, symbols.shape)
    assert again.dtype == np.int64
    np.testing.assert_array_equal(again, symbols)
    assert coders.encode(name, symbols) == data


@pytest.mark.parametrize("name", CODERS)
def test_quantised_weights_come_back(name: str) -> None:
    for scale in (0.2, 3, 40):
        symbols = np.random.default_rng(0).laplace(0, scale, (64, 40)).round().astype(np.int64)
        np.testing.assert_array_equal(coders.decode(name, coders.encode(name, symbols), symbols.shape), symbols)


@pytest.mark.parametrize("name", CODERS)
def test_damage_is_a_value_error_or_other_symbols(name: str) -> None:
    rng = np.random.default_rng(0)
    data = bytearray(coders.encode(name, rng.integers(-4, 5, 300)))
    for _ in range(300):
        bad = bytearray(data)
        bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        bad = bad[: rng.integers(len(bad) + 1)] if rng.random() < 0.3 else bad
        with contextlib.suppress(ValueError):
            assert coders.decode(name, bytes(bad), (300,)).shape == (300,)


def test_an_unknown_coder_or_option_is_a_user_error() -> None:
    with pytest.raises(UserError, match="there is no coder 'morse'"):
        coders.encode("morse", np.zeros(3, np.int64))
    with pytest.raises(UserError, match="colour"):
        coders.encode("raw", np.zeros(3, np.int64), colour=1)
