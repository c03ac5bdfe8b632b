"""Every reader of text, on files as people have them. The expected contents are written by hand."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrcompress.data import grammar
from asrcompress.errors import UserError
from asrcompress.lang import lexicon, ngram, text, textfile, tokens

ARPA = "\\data\\\nngram 1=3\n\n\\1-grams:\n-99 <s> -0.1\n-0.5 </s>\n-0.6 WÖRD\n\n\\end\\\n"
READERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "transcripts": (text.read, "u1 WÖRD TWO\nu2 THREE\n"),
    "sentences": (text.sentences, "WÖRD TWO\nTHREE\n"),
    "lexicon": (lexicon.read, "WÖRD W D\nTWO T UW1\n"),
    "symbols": (tokens.read_symbols, "<blk> 0\nÖ 1\nT 2\n"),
    "grammar": (grammar.read, "sentence: wörd <two>\ntwo: two | three\n"),
    "arpa": (lambda path: list(ngram.ngrams(path)), ARPA),
}
FORMS = {
    "crlf": lambda good: good.replace("\n", "\r\n").encode(),
    "byte order mark": lambda good: b"\xef\xbb\xbf" + good.encode(),
    "no line end": lambda good: good.rstrip("\n").encode(),
    "tabs": lambda good: good.replace(" ", "\t").encode(),
    "blank lines": lambda good: good.replace("\n", "\n \t\n\n").encode(),
    "blanks at the ends": lambda good: "".join(f"  {line}\t \n" for line in good.splitlines()).encode(),
    "gzip": lambda good: gzip.compress(good.encode()),
}
BAD = {
    "latin-1": (lambda good: good.encode("latin-1"), "byte 0xd6 is not UTF-8; .*iconv"),
    "UTF-16": (lambda good: good.encode("utf-16"), "line 1: the file is UTF-16; .*iconv"),
    "NUL": (lambda good: good.replace("W", "W\0").encode(), r"control character character \(U\+0000\)"),
    "carriage returns": (lambda good: good.replace("\n", "\r").encode(), r"line 1: the control character .*U\+000D"),
    "cut gzip": (lambda good: gzip.compress(good.encode())[:-12], "cannot be read on"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", READERS)
def test_every_form_is_read_like_the_plain_one(tmp_path: Path, kind: str, form: str) -> None:
    read, good = READERS[kind]
    (tmp_path / "good").write_text(good, encoding="utf-8")
    (tmp_path / "other").write_bytes(FORMS[form](good))
    assert read(tmp_path / "other") == read(tmp_path / "good")


@pytest.mark.parametrize("form", BAD)
@pytest.mark.parametrize("kind", READERS)
def test_what_is_no_text_is_named_with_file_and_line(tmp_path: Path, kind: str, form: str) -> None:
    read, good = READERS[kind]
    spoil, sentence = BAD[form]
    good = good.upper() if kind == "grammar" else good.replace("<blk> 0\nÖ", "<blk> 0\nWÖ")
    (tmp_path / "bad").write_bytes(spoil(good))
    with pytest.raises(UserError, match=f"bad, line [0-9]+: .*{sentence}|bad, {sentence}"):
        read(tmp_path / "bad")


@pytest.mark.parametrize("kind", READERS)
def test_missing_files_and_folders(tmp_path: Path, kind: str) -> None:
    for path, sentence in ((tmp_path / "none", "does not exist"), (tmp_path, "is a folder")):
        with pytest.raises(UserError, match=sentence):
            READERS[kind][0](path)


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\u00a0", "\u3000"])
def test_unicode_white_space_parts_words_and_never_lines(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "text"
    path.write_text(f"u1 ONE{mark}TWO\nu2{mark}THREE\n", encoding="utf-8", newline="\n")
    assert text.read(path) == {"u1": "ONE TWO", "u2": "THREE"}
    path.write_text(f"-0.1\tA{mark}B\n", encoding="utf-8", newline="\n")
    ((_, line),) = textfile.lines(path, "the model")
    assert textfile.fields(line) == ["-0.1", f"A{mark}B"]
    path.write_text(f"A AH0\nONE W{mark}AH1 N\n", encoding="utf-8", newline="\n")
    with pytest.raises(UserError, match=rf"text, line 2: .*\(U\+{ord(mark):04X}\) inside 'W"):
        lexicon.read(path)


def test_files_that_were_put_together_have_marks_in_the_middle(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"\xef\xbb\xbfu1 ONE\n\xef\xbb\xbfu2 TWO\n")
    assert text.read(tmp_path / "text") == {"u1": "ONE", "u2": "TWO"}


@given(st.dictionaries(st.text("aé-_.#1\u0416", min_size=1), st.lists(st.text("AÉ'#;2()\u0416", min_size=1))))
def test_transcripts_come_back(tmp_path_factory: pytest.TempPathFactory, said: dict[str, list[str]]) -> None:
    texts = {name: " ".join(words) for name, words in said.items() if "#0" not in words}
    path = tmp_path_factory.mktemp("texts") / "text"
    text.write(path, texts)
    assert text.read(path) == texts


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_are_a_sentence(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / "file"
    path.write_bytes(data)
    for read, _ in READERS.values():
        try:
            read(path)
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)


def test_lines_are_numbered_through_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textfile, "BLOCK", 8)
    (tmp_path / "file").write_bytes(b"one\ntwo\r\n\nfour and more\nfive\n\nseven\nach\xe4\n")
    found = textfile.lines(tmp_path / "file", "the file")
    assert [next(found) for _ in range(5)] == [(1, "one"), (2, "two"), (4, "four and more"), (5, "five"), (7, "seven")]
    with pytest.raises(UserError, match="line 8: the byte 0xe4"):
        next(found)
