"""Sentences from a context-free grammar that is a text file: lines `slot: words <slot> words | words`."""

import random
import re
from pathlib import Path

from asrcompress.errors import UserError
from asrcompress.lang import textfile

Grammar = dict[str, list[list[str]]]
_SLOT = re.compile(r"<(\w+)>")


def read(path: Path | str) -> Grammar:
    """Slot -> its alternatives, each a list of words and `<slot>`s. Lines of one slot add up; # begins a comment.

    UserError for a line without a colon, a slot inside a word, one that no line defines, and where `sentence` is
    missing.
    """
    grammar: Grammar = {}
    for number, line in textfile.lines(path, "the grammar"):
        if line.startswith("#"):
            continue
        slot, colon, alternatives = line.partition(":")
        if not colon:
            raise textfile.wrong(path, number, "no colon", "a line of a grammar is 'slot: words | words'")
        for token in alternatives.split():
            if _SLOT.search(token) and not _SLOT.fullmatch(token):
                raise textfile.wrong(path, number, f"'{token}' is a slot and more", "put blanks around <slot>")
        grammar.setdefault(slot.strip(), []).extend(part.split() for part in alternatives.split("|"))
    used = {slot for parts in grammar.values() for part in parts for slot in _SLOT.findall(" ".join(part))}
    for slot in sorted({"sentence", *used} - set(grammar)):
        raise UserError(f"{path} does not say what <{slot}> is; add a line '{slot}: ...'")
    return grammar


def words(grammar: Grammar) -> set[str]:
    """Every word that a sentence may have, in upper case."""
    tokens = {token for parts in grammar.values() for part in parts for token in part}
    return {token.upper() for token in tokens if not _SLOT.fullmatch(token)}


def draw(grammar: Grammar, rng: random.Random, slot: str = "sentence") -> list[str]:
    """The words, in upper case, of a random expansion of `slot`: every alternative is as likely as the others."""
    sentence: list[str] = []
    for token in rng.choice(grammar[slot]):
        inner = _SLOT.fullmatch(token)
        sentence += draw(grammar, rng, inner[1]) if inner else [token.upper()]
    return sentence
