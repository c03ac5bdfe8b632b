"""Pronunciation lexicons: `WORD token token ...`, one pronunciation a line."""

import re
from collections.abc import Iterable
from pathlib import Path

from asrcompress.errors import UserError
from asrcompress.files import atomic, require_file

Lexicon = dict[str, list[list[str]]]


def read(path: Path | str, strip_stress: bool = False) -> Lexicon:
    """Word -> its distinct pronunciations, in file order.

    With `strip_stress`, CMUdict's stress digits go: AH0 and AH1 both become AH.
    """
    lexicon: Lexicon = {}
    for number, line in enumerate(require_file(path, "the lexicon").read_text(encoding="utf-8").splitlines(), 1):
        word, *tokens = line.split() or [""]
        if not word:
            continue
        if not tokens:
            raise UserError(f"{path}, line {number}: '{word}' has no pronunciation; give it one or remove the line")
        if strip_stress:
            tokens = [re.sub(r"\d$", "", token) for token in tokens]
        pronunciations = lexicon.setdefault(word, [])
        if tokens not in pronunciations:
            pronunciations.append(tokens)
    if not lexicon:
        raise UserError(f"the lexicon {path} holds no words")
    return lexicon


def write(path: Path | str, lexicon: Lexicon) -> None:
    with atomic(path) as temporary:
        lines = (f"{word} {' '.join(tokens)}\n" for word in sorted(lexicon) for tokens in lexicon[word])
        temporary.write_text("".join(lines), encoding="utf-8")


class Encoder:
    """Words to token ids, through the first pronunciation of each word."""

    def __init__(self, lexicon: Lexicon, symbols: dict[str, int]) -> None:
        self.ids = {word: [symbols[token] for token in tokens[0]] for word, tokens in lexicon.items()}

    def unknown(self, text: str) -> list[str]:
        return [word for word in text.split() if word not in self.ids]

    def __call__(self, text: str) -> list[int]:
        return [token for word in text.split() for token in self.ids[word]]


def tokens_of(lexicon: Lexicon) -> list[str]:
    return sorted({token for pronunciations in lexicon.values() for tokens in pronunciations for token in tokens})


def words_of(texts: Iterable[str]) -> list[str]:
    return sorted({word for text in texts for word in text.split()})
