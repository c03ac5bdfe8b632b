"""L, the lexicon as a transducer from tokens to words, with kaldi's disambiguation symbols.

There is no optional silence between words: the CTC blank already stands for every frame without a token, so a silence
token would only be a second way to say the same.
"""

from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import k2
import torch

from asrcompress.errors import UserError
from asrcompress.lang import lexicon as lexicons
from asrcompress.lang.tokens import read_symbols


class Lang(NamedTuple):
    """What a lang folder holds: token -> id, word -> id, and (word, tokens) for every pronunciation."""

    tokens: dict[str, int]
    words: dict[str, int]
    pronunciations: list[tuple[str, list[str]]]


def read_lang(folder: Path) -> Lang:
    """Read `tokens.txt`, `words.txt` and `lexicon.txt`; UserError where they do not fit together."""
    tokens, words = read_symbols(folder / "tokens.txt"), read_symbols(folder / "words.txt")
    lexicon = lexicons.read(folder / "lexicon.txt")
    for word, pronunciations in lexicon.items():
        for token in (token for tokens_ in pronunciations for token in tokens_):
            if token not in tokens:
                raise UserError(f"{folder / 'lexicon.txt'}: '{word}' uses the token {token} that is not in tokens.txt; "
                                "make the lang folder again")
        if word not in words:
            raise UserError(f"{folder / 'words.txt'} lacks '{word}' of lexicon.txt; make the lang folder again")
    return Lang(tokens, words, [(word, tokens) for word in lexicon for tokens in lexicon[word]])


def disambiguate(pronunciations: list[list[str]]) -> list[int]:
    """The disambiguation symbol #1, #2, ... that each pronunciation ends with, 0 for none.

    A pronunciation needs one when another word has the same or when it begins another; those that are the same get
    different ones, in order (kaldi's utils/add_lex_disambig.pl). #0 is kept for the language model's back-off.
    """
    sequences = [tuple(tokens) for tokens in pronunciations]
    times = Counter(sequences)
    prefixes = {sequence[:n] for sequence in times for n in range(1, len(sequence))}
    used: Counter[tuple[str, ...]] = Counter()
    symbols = []
    for sequence in sequences:
        needed = times[sequence] > 1 or sequence in prefixes
        used[sequence] += needed
        symbols.append(used[sequence] if needed else 0)
    return symbols


def lexicon_fst(lang: Lang) -> k2.Fsa:
    """L: a loop through state 0 for each pronunciation, and one with #0 on both sides that lets back-off pass.

    Token ids of the disambiguation symbols follow those of the tokens: #0 is V, #1 is V + 1, ...
    """
    first = len(lang.tokens)
    extra = disambiguate([tokens for _, tokens in lang.pronunciations])
    spelt = [[lang.tokens[token] for token in tokens] + [first + n] * (n > 0)
             for (_, tokens), n in zip(lang.pronunciations, extra, strict=True)]
    offsets = list(accumulate((len(labels) - 1 for labels in spelt), initial=0))  # inner states before each loop
    final = offsets[-1] + 1
    begin, middle = [(0, 0, first, lang.words["#0"])], []
    for (word, _), labels, offset in zip(lang.pronunciations, spelt, offsets, strict=False):
        states = [0, *range(offset + 1, offset + len(labels)), 0]
        outputs = [lang.words[word]] + [0] * (len(labels) - 1)
        arcs = list(zip(states[:-1], states[1:], labels, outputs, strict=True))
        begin.append(arcs[0])
        middle.extend(arcs[1:])
    return _fsa([*begin, (0, final, -1, -1), *middle])


def _fsa(arcs: list[tuple[int, int, int, int]]) -> k2.Fsa:
    """Arcs (from, to, label, output), in the order of their states, all with score 0."""
    table = torch.tensor(arcs, dtype=torch.int32)
    outputs = table[:, 3].clone()
    table[:, 3] = 0  # the bits of the score 0.0
    return k2.arc_sort(k2.Fsa(table, aux_labels=outputs))
