import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrcompress.errors import UserError
from asrcompress.lang.tokens import BLANK, collapse, read_symbols, write_symbols


def test_round_trip_and_format(tmp_path: Path) -> None:
    symbols = [BLANK, "AA", "▁THE", "ß"]
    write_symbols(tmp_path / "tokens.txt", symbols)
    assert (tmp_path / "tokens.txt").read_text(encoding="utf-8") == "<blk> 0\nAA 1\n▁THE 2\nß 3\n"
    assert read_symbols(tmp_path / "tokens.txt") == {symbol: i for i, symbol in enumerate(symbols)}
    assert [path.name for path in tmp_path.iterdir()] == ["tokens.txt"]


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("<blk> 0\nAA\n", "line 2: expected '<symbol> <id>', found 'AA'"),
        ("<blk> 0\nAA one\n", "line 2"),
        ("<blk> 0\nA A 1\n", "line 2"),
        ("<blk> 0\nAA 2\n", "the ids are not 0 to 1"),
        ("<blk> 0\nAA 0\n", "the ids are not 0 to 1"),
        ("<blk> 0\nAA 1\nAA 2\n", "line 3: 'AA' comes a second time"),
        ("<blk> 0\nAA ²\n", "line 2: expected"),
    ],
)
def test_bad_tables_are_sentences(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "tokens.txt").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_symbols(tmp_path / "tokens.txt")


def test_missing_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the symbol table .* does not exist"):
        read_symbols(tmp_path / "tokens.txt")


@given(st.lists(st.integers(0, 3)))
def test_collapse_is_the_ctc_map(path: list[int]) -> None:
    assert collapse(path) == [token for token, _ in itertools.groupby(path) if token != 0]
