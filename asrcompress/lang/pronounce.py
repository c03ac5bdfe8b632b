"""Pronunciations by rule for words that a lexicon lacks, as Kaldi's local/dict of egs/wsj/s5 finds them.

Acronyms are spelt. Other words come from a neighbour in the lexicon: a rule such as (IES, Y; IY Z, IY) says that a word
that ends in IES where its base ends in Y ends in the phones IY Z where the base ends in IY. The rules are learned from
the lexicon itself, for endings and, by reversing words and phones, for beginnings. A rule's score is the share of the
lexicon's pairs of words for which it is right.

Unlike Kaldi's, the rules do not look at stress (our tokens are phones without stress), and of two words they look at
the letters alone that differ.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from typing import NamedTuple

from asrcompress.lang.lexicon import Lexicon

COMMON = 3          # letters, at least, that two words share
MOST_SUFFIX = 6     # letters that differ
SEEN = 20           # pairs of words, at least, that a rule is right for
LEAST_SCORE = 0.35
MOST = 4            # pronunciations of a word
SPELT = 5           # letters, at most, of a word without full stops that may be spelt
REPEATED = {2: "DOUBLE", 3: "TRIPLE"}
_WITH_STOPS = re.compile(r"([A-Z]\.)+([A-Z])?")

Phones = tuple[str, ...]
Pair = tuple[str, str]  # endings of a word and of its base


class Rule(NamedTuple):
    """The last phones of a word and of its base, and how sure that is."""

    phones: Phones
    base: Phones
    score: float


Rules = dict[str, dict[str, list[Rule]]]  # by the ending of the word and of its base


def guess(lexicon: Lexicon, words: Collection[str]) -> Lexicon:
    """Pronunciations of those of `words` (in the lexicon's case) for which there is a rule, the surest first.

    Phones that come from a base word keep their stress; those of a rule have that of one of its examples.
    """
    if not words:
        return {}
    forward = {word: [tuple(tokens) for tokens in pronunciations] for word, pronunciations in lexicon.items()}
    backward = {word[::-1]: [phones[::-1] for phones in found] for word, found in forward.items()}
    ends, begins = learn(forward), learn(backward)
    guessed: Lexicon = {}
    for word in words:
        found = [*_derived(word, forward, ends),
                 *((score, phones[::-1]) for score, phones in _derived(word[::-1], backward, begins))]
        best: dict[Phones, Phones] = {}
        for _, phones in sorted(found, reverse=True):
            best.setdefault(_plain(phones), phones)
        for phones in spell(word, lexicon):
            best.setdefault(_plain(phones), phones)
        if best:
            guessed[word] = [list(phones) for phones in best.values()][:MOST]
    return guessed


def spell(word: str, lexicon: Lexicon) -> list[Phones]:
    """A word of at most five letters, or of letters with full stops, letter by letter; of letters that come two or
    three times in a row also "double" and "triple". [] for other words, and where a letter has no pronunciation."""
    if not (_WITH_STOPS.fullmatch(word) or re.fullmatch(f"[A-Z]{{1,{SPELT}}}", word)):
        return []
    letters = word.replace(".", "")
    runs = [run[0] for run in re.finditer(r"(.)\1*", letters)]
    short = [name for run in runs for name in ([REPEATED[len(run)], run[0]] if len(run) in REPEATED else run)]
    found: list[Phones] = []
    for name in (list(letters), short):
        spoken = [lexicon.get(f"{part}.") or lexicon.get(part) for part in name]
        phones = tuple(token for one in spoken if one for token in one[0])
        if all(spoken) and phones not in found:
            found.append(phones)
    return found


def learn(lexicon: dict[str, list[Phones]]) -> Rules:
    """The rules for endings that are right for enough pairs of the lexicon's words, for each pair of endings those with
    the most phones of the base first."""
    right: Counter[tuple[Pair, Phones, Phones]] = Counter()
    example: dict[tuple[Pair, Phones, Phones], Phones] = {}
    pairs = list(_pairs(lexicon))
    often = {pair for pair, count in Counter(pair for pair, _, _ in pairs).items() if count >= SEEN}
    pairs = [one for one in pairs if one[0] in often]
    for pair, word, base in pairs:
        made = {}
        for phones in lexicon[word]:
            for from_phones in lexicon[base]:
                same = _common(_plain(phones), _plain(from_phones))
                made[pair, _plain(phones[same:]), _plain(from_phones[same:])] = phones[same:]
        for one, stressed in made.items():
            right[one] += 1
            example.setdefault(one, stressed)
    known: dict[Pair, list[tuple[Phones, Phones]]] = defaultdict(list)
    for (pair, phones, from_phones), count in right.items():
        if count >= SEEN:
            known[pair].append((phones, from_phones))
    tried: Counter[tuple[Pair, Phones, Phones]] = Counter()
    for pair, _, base in pairs:
        plain = [_plain(phones) for phones in lexicon[base]]
        for phones, from_phones in known.get(pair, ()):
            tried[pair, phones, from_phones] += any(_ends(one, from_phones) for one in plain)
    rules: Rules = defaultdict(dict)
    for pair, found in known.items():
        scored = [Rule(example[pair, phones, from_phones], from_phones,
                       right[pair, phones, from_phones] / (tried[pair, phones, from_phones] + 1))
                  for phones, from_phones in found]
        rules[pair[0]][pair[1]] = sorted(scored, key=lambda rule: (-len(rule.base), -rule.score))
    return rules


def _pairs(lexicon: dict[str, list[Phones]]) -> Iterator[tuple[Pair, str, str]]:
    """Every two words that part after three letters or later, with endings that many words have."""
    stems: dict[str, dict[str, str]] = defaultdict(dict)  # what words begin with: the rest, and the word
    for word in lexicon:
        for at in range(max(COMMON, len(word) - MOST_SUFFIX), len(word) + 1):
            stems[word[:at]][word[at:]] = word
    usual = {end for end, count in Counter(end for ends in stems.values() for end in ends).items() if count >= SEEN}
    for ends in stems.values():
        here = [(end, word) for end, word in ends.items() if end in usual]
        for end, word in here:
            for other, base in here:
                if end[:1] != other[:1]:
                    yield (end, other), word, base


def _derived(word: str, lexicon: dict[str, list[Phones]], rules: Rules) -> Iterator[tuple[float, Phones]]:
    """(score, phones) of a word from each base in the lexicon; of a base's rules, the one with the most phones counts.
    """
    for at in range(max(COMMON, len(word) - MOST_SUFFIX), len(word) + 1):
        for other, ordered in rules.get(word[at:], {}).items():
            for phones in lexicon.get(word[:at] + other, ()):
                rule = next((rule for rule in ordered if _ends(_plain(phones), rule.base)), None)
                if rule and rule.score >= LEAST_SCORE:
                    yield rule.score, phones[:len(phones) - len(rule.base)] + rule.phones


def _common(one: Phones, other: Phones) -> int:
    """How many phones two pronunciations have in common at their beginning."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _ends(phones: Phones, end: Phones) -> bool:
    return not end or phones[-len(end):] == end


def _plain(phones: Phones) -> Phones:
    """Phones without stress."""
    return tuple(phone.rstrip("012") for phone in phones)
