"""Transcripts of WSJ: `.dot` files, one per speaker and session, lines `TEXT (ID)`, and the words that they say.

The rules are those of Kaldi's egs/wsj/s5: local/normalize_transcript.pl, and local/wer_ref_filter, which Kaldi applies
when it scores and this once, to the text of every set. Noise leaves the text. A few mends are wav2letter's
(data/wsj/utils.py).
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from asrcompress.data.corpora import _wsj_discs
from asrcompress.errors import UserError

_LINE = re.compile(r"(.*?)\s*\((\w{8})\)", re.ASCII)
# A noise on the word before or behind, a stretch of it that begins or ends, a cut, a pause.
_SILENT = re.compile(r"\[<\w+\]|\[\w+>\]|\[\w+/\]|\[/\w+\]|~+|\.")
_NOISE = re.compile(r"\[\w+\]")
_DELETION = re.compile(r"<([^<>]+)>")  # verbal deletion: the reader took it back, but said it
_MARKS = re.compile("[*:!]")  # of emphasis and length
_PUNCTUATION = {":COLON", "!EXCLAMATION-POINT"}  # said aloud: here the mark belongs to the word
_MENDED = {
    "%PERCENT": "PERCENT", ".POINT": "POINT", "--DASH": "-DASH", "(IN-PARENTHESIS": "(IN-PARENTHESES", "CORP;": "CORP.",
    "-HOLDER": "HOLDER", "COMPAIGN": "CAMPAIGN", "APPROACHES-": "APPROACHES", "RESEACHERS": "RESEARCHERS",
}


def read(paths: Iterable[Path], warn: Callable[[str], None]) -> dict[str, str]:
    """Utterance id -> its text as it stands in the `.dot` files, blanks evened out; a line that is none is named.

    Errors: UserError where two files have different text for an utterance.
    """
    texts: dict[str, str] = {}
    places: dict[str, Path] = {}
    for path in paths:
        for number, line in _wsj_discs.lines(path):
            if not (found := _LINE.fullmatch(line)):
                warn(f"{path}, line {number}: '{line}' is not 'TEXT (ID)'; left out")
                continue
            name, raw = found[2].lower(), " ".join(found[1].split())
            if texts.setdefault(name, raw) != raw:
                raise UserError(f"{path} and {places[name]} have different text for {name}; keep the right one of them")
            places.setdefault(name, path)
    return texts


def normalize(raw: str) -> str:
    """The words of a transcript, in upper case; "" where nothing is said, as in `~~`."""
    return " ".join(filter(None, map(_word, raw.split())))


def _word(word: str) -> str:
    word = word.upper().replace("\\", "").replace("`", "'")
    if _SILENT.fullmatch(word) or _NOISE.search(word):
        return ""
    if deleted := _DELETION.fullmatch(word):
        word = deleted[1]
    if word not in _PUNCTUATION:
        word = _MARKS.sub("", word)
    return _MENDED.get(word, word)
