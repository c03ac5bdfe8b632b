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
