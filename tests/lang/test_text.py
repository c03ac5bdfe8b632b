from pathlib import Path

import pytest

from asrcompress.errors import UserError
from asrcompress.lang import text


def test_sorted_one_a_line_and_read_again(tmp_path: Path) -> None:
    texts = {"b-2": "SOME  WORDS", "a-10": "", "a-1": "É"}
    text.write(tmp_path / "text", texts)
    assert (tmp_path / "text").read_text(encoding="utf-8") == "a-1 É\na-10\nb-2 SOME  WORDS\n"
    assert text.read(tmp_path / "text") == {"a-1": "É", "a-10": "", "b-2": "SOME WORDS"}


def test_tabs_and_empty_lines(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("\n a\tB  C \n\n")
    assert text.read(tmp_path / "text") == {"a": "B C"}
    with pytest.raises(UserError, match="the transcript file .* does not exist"):
        text.read(tmp_path / "other")


def test_an_utterance_that_is_listed_twice_is_named_with_both_lines(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("u1 ONE\nu2 TWO\n\nu1 OTHER\n")
    with pytest.raises(UserError, match=r"text, line 4: utterance u1 is listed a second time \(first on line 1\)"):
        text.read(tmp_path / "text")


def test_ids_of_several_files(tmp_path: Path) -> None:
    ids = text.Ids()
    ids.add("u1", "a.txt", 3)
    ids.add("u2", "b.txt", 1)
    with pytest.raises(UserError, match=r"b.txt, line 2: utterance u1 .* \(first on line 3 of a.txt\)"):
        ids.add("u1", "b.txt", 2)


@pytest.mark.parametrize("symbol", ["<s>", "</s>", "<eps>", "#0"])
def test_reserved_symbols_are_no_words(tmp_path: Path, symbol: str) -> None:
    (tmp_path / "text").write_text(f"u1 ONE\nu2 TWO {symbol}\n")
    for read in (text.read, text.sentences):
        with pytest.raises(UserError, match=f"text, line 2: '{symbol}' is a reserved symbol"):
            read(tmp_path / "text")


def test_sentences_without_their_ids(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("u1\tONE  TWO\nu2\nu3 THREE\n")
    assert text.sentences(tmp_path / "text", utterance_ids=True) == ["ONE TWO", "", "THREE"]
    assert text.sentences(tmp_path / "text") == ["u1 ONE TWO", "u2", "u3 THREE"]
