"""Pronunciations by rule for words that a lexicon lacks, as Kaldi's egs/wsj/s5/local/dict finds them.

Acronyms are spelt. Other words come from a neighbour in the lexicon. A rule such as (IES, Y, IY0 Z, IY0) says: where a
base word ends in Y and IY0, the word that ends in IES instead ends in IY0 Z. Rules are learned from the lexicon: every
way to part two words after three common letters or more, and their pronunciations after phones that are equal up to
stress, is a rule if it is seen 20 times. Words and phones read backwards give the rules for beginnings.

A rule's score is its success on the lexicon itself, (right + 0.8 right up to stress) / (all + 1). Among the rules that
make the same pronunciation from the same base, only the most special count: those with more letters and phones.

Of pronunciations that differ in stress only, one is kept (Kaldi keeps both): the tokens of a lang folder have none.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from itertools import combinations, product

from asrcompress.lang.lexicon import Lexicon

COMMON = 3            # letters that a word and its base share, at least
SEEN = 20             # examples of a rule, at least
LEAST_SCORE = 0.35
MOST = 4              # pronunciations of a word by rules
STRESS_ONLY = 0.8     # what a pronunciation counts that is right up to stress
LOWERED = 1e-5        # what lowering stress 2 of the base to 1 costs
REPEATED = {2: "DOUBLE", 3: "TRIPLE"}
_ACRONYM = re.compile(r"[A-Z]{1,5}|([A-Z]\.){1,5}|([A-Z]\.){1,4}[A-Z]")

Rule = tuple[str, str, str, str]  # endings of the word and of the base, phones of the word and of the base


def guess(lexicon: Lexicon, words: Collection[str]) -> Lexicon:
    """The pronunciations of those of `words` that have any, the surest first: by rules, then spelt as an acronym.

    The lexicon and the words are in upper case. CMUdict takes half a minute, then a word less than a millisecond.
    """
    if not words:
        return {}
    phones = Phones(token for pronunciations in lexicon.values() for tokens in pronunciations for token in tokens)
    known = {word: [phones.encode(tokens) for tokens in pronunciations] for word, pronunciations in lexicon.items()}
    endings = Rules(known, phones)
    beginnings = Rules({word[::-1]: [one[::-1] for one in found] for word, found in known.items()}, phones)
    guessed: Lexicon = {}
    for word in words:
        found = [*endings.apply(word), *((score, one[::-1]) for score, one in beginnings.apply(word[::-1]))]
        best: dict[str, str] = {}
        for score, one in sorted(found, key=lambda pair: (-pair[0], pair[1])):
            if score >= LEAST_SCORE and len(best) < MOST:
                best.setdefault(phones.bare(one), one)
        for tokens in spell(lexicon, word):
            best.setdefault(phones.bare(phones.encode(tokens)), phones.encode(tokens))
        if best:
            guessed[word] = [phones.decode(one) for one in best.values()]
    return guessed


def spell(lexicon: Lexicon, word: str) -> list[list[str]]:
    """The pronunciations of an acronym of at most five letters (UK, U.K, U.K.), [] for any other word.

    The letters are the lexicon's words A., B., ...; a letter that comes two or three times in a row is also said with
    the words DOUBLE and TRIPLE.
    """
    if not _ACRONYM.fullmatch(word):
        return []
    runs = []
    for run in re.finditer(r"(.)\1*", word.replace(".", "")):
        letter, times = lexicon.get(f"{run[1]}.", []), len(run[0])
        runs.append([one * times for one in letter] + [
            many + one for many in lexicon.get(REPEATED.get(times, ""), []) for one in letter])
    return [[token for part in parts for token in part] for parts in product(*runs)]


class Phones:
    """Pronunciations as strings, one character a phone: they are cut, compared and reversed as words are."""

    def __init__(self, tokens: Iterable[str]) -> None:
        tokens = set(tokens)
        self.names = sorted(tokens | {_bare(token) for token in tokens} | {_lowered(token) for token in tokens})
        self.codes = {name: chr(i) for i, name in enumerate(self.names)}
        self._bare = {i: self.codes[_bare(name)] for i, name in enumerate(self.names)}
        self._lowered = {i: self.codes[_lowered(name)] for i, name in enumerate(self.names)}

    def encode(self, tokens: Iterable[str]) -> str:
        """The string of a pronunciation."""
        return "".join([self.codes[token] for token in tokens])

    def decode(self, phones: str) -> list[str]:
        """The pronunciation of a string."""
        return [self.names[ord(phone)] for phone in phones]

    def bare(self, phones: str) -> str:
        """A string without stress."""
        return phones.translate(self._bare)

    def lowered(self, phones: str) -> str:
        """A string with stress 1 where it has stress 2."""
        return phones.translate(self._lowered)


def _bare(token: str) -> str:
    return re.sub(r"(?<=\D)[012]$", "", token)


def _lowered(token: str) -> str:
    return re.sub(r"(?<=\D)2$", "1", token)


class Rules:
    """The rules for endings that hold in a lexicon {word: pronunciations as strings of `phones`}, and their scores."""

    def __init__(self, known: dict[str, list[str]], phones: Phones) -> None:
        self.known, self.phones = known, phones
        self.endings = _endings(known)
        self.rules = self._learn()  # {endings of word and base: {phones of the base: those of the word}}
        self.scores = self._score()  # {rule: (score, the same where the base's stress is lowered)}

    def apply(self, word: str) -> Iterator[tuple[float, str]]:
        """(score, phones) for every rule that makes a word from one of the lexicon."""
        for rule, kept in self._candidates(word):
            score, lowered = self.scores.get(rule, (0.0, 0.0))
            yield score, kept + rule[2]
            yield lowered, self.phones.lowered(kept) + rule[2]

    def _learn(self) -> dict[tuple[str, str], dict[str, list[str]]]:
        counts = Counter(pair for ends in self.endings.values() for pair in combinations(ends, 2))
        stems: dict[tuple[str, str], list[str]] = defaultdict(list)
        for stem, ends in self.endings.items():
            for pair in combinations(ends, 2):
                if counts[pair] >= SEEN:
                    stems[pair].append(stem)
        bare = {word: [self.phones.bare(one) for one in found] for word, found in self.known.items()}
        rules: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for (a, b), found in stems.items():
            seen: Counter[tuple[str, str]] = Counter()
            for stem in found:
                one, other = stem + a, stem + b
                for (x, bare_x), (y, bare_y) in product(zip(self.known[one], bare[one], strict=True),
                                                        zip(self.known[other], bare[other], strict=True)):
                    seen.update([(x[at:], y[at:]) for at in range(_common(bare_x, bare_y) + 1)])
            for (x, y), count in seen.items():
                if count >= SEEN:
                    rules[a, b][y].append(x)
                    rules[b, a][x].append(y)
        return rules

    def _candidates(self, word: str) -> Iterator[tuple[Rule, str]]:
        """(rule, the phones that it keeps of the base) of the most special rules that make a word."""
        made: dict[tuple[str, str, str], list[tuple[Rule, str]]] = defaultdict(list)
        for at in range(COMMON, len(word) + 1):
            stem, end = word[:at], word[at:]
            for other in self.endings.get(stem, ()):
                if not (rules := self.rules.get((end, other))):
                    continue
                for base in self.known[stem + other]:
                    for cut in range(len(base) + 1):
                        for phones in rules.get(base[cut:], ()):
                            rule = end, other, phones, base[cut:]
                            made[stem + other, base, base[:cut] + phones].append((rule, base[:cut]))
        for found in made.values():
            yield from ((rule, kept) for rule, kept in found if not any(_special(one, rule) for one, _ in found))

    def _score(self) -> dict[Rule, tuple[float, float]]:
        tried: dict[Rule, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        for word, own in self.known.items():
            bare = {self.phones.bare(one) for one in own}
            for rule, kept in self._candidates(word):
                tally = tried[rule]
                tally[0] += 1
                if self.phones.bare(kept + rule[2]) in bare:
                    tally[1] += 1
                    tally[2] += kept + rule[2] in own
                    tally[3] += self.phones.lowered(kept) + rule[2] in own
        return {rule: (_share(all_, near, right), _share(all_, near, lowered) - LOWERED)
                for rule, (all_, near, right, lowered) in tried.items()}


def _endings(words: Collection[str]) -> dict[str, list[str]]:
    """What words begin with, three letters or more: the endings after it, sorted, as far as many words have them."""
    cuts = [(word[:at], word[at:]) for word in words for at in range(COMMON, len(word) + 1)]
    counts = Counter(end for _, end in cuts)
    endings = defaultdict(list)
    for stem, end in cuts:
        if counts[end] >= SEEN:
            endings[stem].append(end)
    return {stem: sorted(ends) for stem, ends in endings.items()}


def _common(one: str, other: str) -> int:
    """How many characters two strings have in common at their beginning."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _special(one: Rule, other: Rule) -> bool:
    """Whether one rule has more letters or phones than another, and fewer of neither."""
    return one != other and len(one[1]) >= len(other[1]) and len(one[3]) >= len(other[3])


def _share(tried: int, near: int, right: int) -> float:
    return (right + STRESS_ONLY * (near - right)) / (tried + 1)
