"""Kaldi's `text` files: `UTTERANCE-ID WORD WORD ...`, one utterance a line, sorted by id."""

from collections.abc import Iterator
from pathlib import Path

from asrcompress.files import atomic
from asrcompress.lang import textfile

Place = tuple[Path | str, int]  # file and line


class Ids:
    """The ids seen so far, with their places: no two lines may speak of one utterance."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}

    def add(self, name: str, path: Path | str, number: int) -> None:
        """Take the id of a line. Errors: UserError, with both places, where it was there before."""
        if name in self._places:
            other, line = self._places[name]
            before = f"line {line}" if str(other) == str(path) else f"line {line} of {other}"
            raise textfile.wrong(path, number, f"utterance {name} is listed a second time (first on {before})",
                                 "keep one of the two lines")
        self._places[name] = path, number


def entries(path: Path | str, what: str = "the transcript file") -> Iterator[tuple[int, str, str]]:
    """Yield (line number, utterance id, words with one space between them, "" for none) in file order.

    The id ends at the first white space, and any white space parts words. Errors: UserError of `textfile.lines`, and
    for a reserved symbol such as <s> among the words.
    """
    for number, line in textfile.lines(path, what):
        name, *words = line.split()
        check_words(words, path, number)
        yield number, name, " ".join(words)


def check_words(words: list[str], path: Path | str, number: int) -> None:
    """UserError where one of the words of a line is a reserved symbol."""
    if not textfile.RESERVED.isdisjoint(words):
        symbol = next(word for word in words if word in textfile.RESERVED)
        raise textfile.wrong(path, number, f"'{symbol}' is a reserved symbol and no word", "remove it from the line")


def read(path: Path | str) -> dict[str, str]:
    """Utterance id -> its words. Errors: UserError of `entries`, and for an id that is listed twice."""
    texts, ids = {}, Ids()
    for number, name, words in entries(path):
        ids.add(name, path, number)
        texts[name] = words
    return texts


def sentences(path: Path | str, utterance_ids: bool = False) -> list[str]:
    """The sentences of a text file, one a line, without the first field of each where that is an utterance id.

    Errors: UserError of `textfile.lines`, and for a reserved symbol.
    """
    if utterance_ids:
        return [words for _, _, words in entries(path, "the text file")]
    found = []
    for number, line in textfile.lines(path, "the text file"):
        check_words(words := line.split(), path, number)
        found.append(" ".join(words))
    return found


def write(path: Path | str, texts: dict[str, str]) -> None:
    """Write id -> words, sorted by id; the file is whole or not there."""
    with atomic(path) as temporary:
        temporary.write_text("".join(f"{key} {texts[key]}".rstrip() + "\n" for key in sorted(texts)), encoding="utf-8")
