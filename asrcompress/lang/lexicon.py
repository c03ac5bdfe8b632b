"""Pronunciation lexicons: `WORD token token ...`, one pronunciation a line, in the forms that people have them.

Read are Kaldi's and LibriSpeech's lexicon.txt and both forms of CMUdict: `;;;` and `#` begin comments, and `WORD(2)` is
one more pronunciation of WORD. docs/text_files.md lists what is an error.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from asrcompress.errors import UserError
from asrcompress.files import atomic
from asrcompress.lang import textfile
from asrcompress.lang.tokens import BLANK, read_symbols

Lexicon = dict[str, list[list[str]]]
_VARIANT = re.compile(r"(.+)\(\d+\)")
_PROBABILITY = re.compile(r"[01]?\.\d*(e-\d+)?|\d(\.\d+)?e-\d+")
_SILENCE = re.compile(r"<.*|!SIL")  # entries of silence and noise


def read(path: Path | str, strip_stress: bool = False, upper: bool = False, otherwise: str | None = None) -> Lexicon:
    """Word -> its distinct pronunciations, in file order.

    With `strip_stress`, CMUdict's stress digits go: AH0 and AH1 both become AH. With `upper`, words become upper case.
    Lines that are not UTF-8 are read in the encoding `otherwise`, where one is given. Errors: UserError, with the line,
    where one is not understood, and where the file holds no word.
    """
    lexicon: Lexicon = {}
    for number, line in textfile.lines(path, "the lexicon", otherwise):
        if not (found := textfile.fields(_without_comment(line))):
            continue
        word, *tokens = found
        _check(path, number, word, tokens)
        if strip_stress:
            tokens = [re.sub(r"\d$", "", token) for token in tokens]
        variant = _VARIANT.fullmatch(word)
        word = variant[1] if variant else word
        pronunciations = lexicon.setdefault(word.upper() if upper else word, [])
        if tokens not in pronunciations:
            pronunciations.append(tokens)
    if not lexicon:
        raise UserError(f"the lexicon {path} holds no words; give one with 'WORD token token ...' a line")
    return lexicon


def _without_comment(line: str) -> str:
    """The line up to a comment: `;;;` at its start, or a field that begins with #, but not Kaldi's #1, #2, ..."""
    if line.startswith(";;;"):
        return ""
    comment = re.search(r"(?:^#|[ \t]#(?!\d+(?:[ \t]|$)))", line) if "#" in line else None
    return line[:comment.start()] if comment else line


def _check(path: Path | str, number: int, word: str, tokens: list[str]) -> None:
    if not tokens:
        raise textfile.wrong(path, number, f"'{word}' has no pronunciation", "give it one or remove the line")
    for field in (word, *tokens):
        if space := textfile.odd_space(field):
            raise textfile.wrong(path, number, f"{space} inside '{field}'", "part fields with spaces or tabs")
    for token in tokens:
        if token in textfile.RESERVED or token == BLANK or token.startswith("#"):
            raise textfile.wrong(path, number, f"'{token}' is a reserved symbol and no token of a pronunciation",
                                 "give the lexicon without disambiguation symbols")
    if _PROBABILITY.fullmatch(tokens[0]):
        raise textfile.wrong(path, number, f"'{tokens[0]}' is a probability and no token",
                             "give the lexicon without probabilities (lexicon.txt, not lexiconp.txt)")


def spoken(lexicon: Lexicon) -> Lexicon:
    """The entries that are words: not `<...>` and `!SIL`, which stand for silence and noise."""
    return {word: pronunciations for word, pronunciations in lexicon.items() if not _SILENCE.fullmatch(word)}


def expressible(word: str, tokens: Iterable[str]) -> bool:
    """Whether `read` would give an entry back: false where the word or a token means something else in a lexicon."""
    marked = word.startswith(("#", ";;;")) or any(token.startswith("#") for token in tokens)
    return not (marked or word in textfile.RESERVED or _VARIANT.fullmatch(word) or _SILENCE.fullmatch(word))


def write(path: Path | str, lexicon: Lexicon) -> None:
    """Write one pronunciation a line, sorted by word; the file is whole or not there."""
    with atomic(path) as temporary:
        lines = (f"{word} {' '.join(tokens)}\n" for word in sorted(lexicon) for tokens in lexicon[word])
        temporary.write_text("".join(lines), encoding="utf-8")


class Encoder:
    """Words to token ids, through the first pronunciation of each word. `symbols` is token -> id."""

    def __init__(self, lexicon: Lexicon, symbols: dict[str, int]) -> None:
        self.ids = {word: [symbols[token] for token in tokens[0]] for word, tokens in lexicon.items()}

    def unknown(self, text: str) -> list[str]:
        """The words of a text that have no pronunciation."""
        return [word for word in text.split() if word not in self.ids]

    def __call__(self, text: str) -> list[int]:
        """The token ids of a text whose words are all known."""
        return [token for word in text.split() for token in self.ids[word]]


def of_lang(folder: Path) -> tuple[dict[str, int], Encoder]:
    """The tokens of a lang folder by id, and its encoder. Errors: UserError where either cannot be read."""
    symbols = read_symbols(folder / "tokens.txt")
    return symbols, Encoder(read(folder / "lexicon.txt"), symbols)


def tokens_of(lexicon: Lexicon) -> list[str]:
    """The tokens of all pronunciations, sorted."""
    return sorted({token for pronunciations in lexicon.values() for tokens in pronunciations for token in tokens})


def words_of(texts: Iterable[str]) -> list[str]:
    """The distinct words of some texts, sorted."""
    return sorted({word for text in texts for word in text.split()})
