"""Pronunciations by rule: worked out by hand on an invented dictionary, and against a program that takes every step."""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import permutations, product

import pytest

from asrcompress.lang import pronounce
from asrcompress.lang.lexicon import Lexicon

ONSETS, CODAS = "BDGKPTFVZM", "BDGLMNPT"
FEW, MANY = {"A": "AE1"}, {"A": "AE1", "O": "AA1", "I": "IH1"}


def dictionary(vowels: dict[str, str]) -> Lexicon:
    """Stems such as BAD, 10 for each coda and vowel; -ING and -Y; -IES beside the latter; RE- before it; -ED says IH0 D
    after T and D, else D; -ER has stress 2, but not before -LY."""
    found: Lexicon = {}
    for onset, vowel, coda in product(ONSETS, vowels, CODAS):
        stem, phones = onset + vowel + coda, [onset, vowels[vowel], coda]
        second = [onset, vowels[vowel].replace("1", "2"), coda]
        found |= {stem: [phones], f"{stem}ING": [[*phones, "IH0", "NG"]], f"RE{stem}": [["R", "IY0", *phones]],
                  f"{stem}Y": [[*phones, "IY0"]], f"{stem}IES": [[*phones, "IY0", "Z"]],
                  f"{stem}ED": [[*phones, "IH0", "D"] if coda in "TD" else [*phones, "D"]],
                  f"{stem}ER": [[*second, "ER0"]], f"{stem}ERLY": [[*phones, "ER0", "L", "IY0"]]}
    return found


@pytest.mark.parametrize(("word", "base", "said"), [
    ("BUXING", "BUX B UH1 S", ["B UH1 S IH0 NG"]),        # an ending
    ("BUXIES", "BUXY B UH1 S IY0", ["B UH1 S IY0 Z"]),    # one in place of another
    ("BUXY", "BUXIES B UH1 S IY0 Z", ["B UH1 S IY0"]),    # and the other way round
    ("BUX", "BUXING B UH1 S IH0 NG", ["B UH1 S"]),        # none
    ("REBUX", "BUX B UH1 S", ["R IY0 B UH1 S"]),          # a beginning
    ("BUX", "REBUX R IY0 B UH1 S", ["B UH1 S"]),
    ("BUXERLY", "BUXER B UH2 S ER0", ["B UH1 S ER0 L IY0"]),   # 80 / 81 - 0.00001, for 0.8 * 80 / 81 with stress 2
    ("BUXED", "BUX B UH1 S", ["B UH1 S D"]),              # 60 / 81; IH0 D has 20 / 81, which is too little
    ("BUTED", "BUT B UH1 T", ["B UH1 T D"]),              # T IH0 D after T was seen 10 times only
    ("BUXED", "BUXING B UH1 S IH0", []),                  # the base ends in other phones
    ("BUXQ", "BUX B UH1 S", []),                          # nothing ends so
    ("BXING", "BX B S", []),                              # two letters in common
])
def test_a_word_is_made_from_its_base(word: str, base: str, said: list[str]) -> None:
    name, *phones = base.split()
    lexicon = {**dictionary(FEW), name: [phones]}
    assert derived(lexicon, word) == said


def test_rules_with_more_phones_bar_those_with_fewer() -> None:
    """With 30 words for each coda, T IH0 D after T is a rule, and D after anything is right nowhere that it counts."""
    lexicon = {**dictionary(MANY), "BUT": [["B", "UH1", "T"]], "BUL": [["B", "UH1", "L"]], "BUX": [["B", "UH1", "S"]]}
    assert derived(lexicon, "BUTED") == ["B UH1 T IH0 D"]
    assert derived(lexicon, "BULED") == ["B UH1 L D"]
    assert derived(lexicon, "BUXED") == []


def test_the_surest_four_that_differ_in_more_than_stress() -> None:
    lexicon = dictionary(FEW)
    lexicon["BUXY"] = [["B", vowel, "S", "IY0"] for vowel in ("UW1", "UW0", "UH1", "OW1", "EY1", "AY1")]
    said = derived(lexicon, "BUXIES")
    assert len(said) == 4 and len({re.sub(r"\d", "", one) for one in said}) == 4


def derived(lexicon: Lexicon, word: str) -> list[str]:
    """The pronunciations of a word by rules; nothing is spelt, since the lexicon has no A., B., ..."""
    return [" ".join(tokens) for tokens in pronounce.guess(lexicon, [word]).get(word, [])]


LETTERS = {"B.": [["B", "IY1"]], "S.": [["EH1", "S"], ["EH0", "S"]], "B": [["B"]], "C": [["S", "IY1"]],
           "DOUBLE": [["D", "AH1", "L"]], "TRIPLE": [["T", "R", "L"]]}


@pytest.mark.parametrize(("word", "said"), [
    ("B", ["B IY1"]), ("BSB", ["B IY1 EH1 S B IY1", "B IY1 EH0 S B IY1"]), ("B.S", ["B IY1 EH1 S", "B IY1 EH0 S"]),
    ("B.S.", ["B IY1 EH1 S", "B IY1 EH0 S"]), ("BB", ["B IY1 B IY1", "D AH1 L B IY1"]),
    ("SBBB", [f"{s} {b}" for s in ("EH1 S", "EH0 S") for b in ("B IY1 B IY1 B IY1", "T R L B IY1")]),
    ("BBBB", ["B IY1 B IY1 B IY1 B IY1"]), ("B.B", ["B IY1 B IY1", "D AH1 L B IY1"]),
    ("CB", []), ("BSBSBS", []), ("B.S.B.S.B.S.", []), ("B4", []), ("B'S", []), ("BS.", []), (".", []), ("b", []),
])
def test_acronyms_are_spelt(word: str, said: list[str]) -> None:
    assert [" ".join(tokens) for tokens in pronounce.spell(LETTERS, word)] == said


def test_what_is_spelt_comes_after_what_rules_say() -> None:
    lexicon = dictionary(FEW) | LETTERS | {"BSBING": [["B", "UH1", "B", "IH0", "NG"]]}
    assert derived(lexicon, "BSB") == ["B UH1 B", "B IY1 EH1 S B IY1"], "and differs in more than stress"
    assert pronounce.guess(lexicon, []) == {}


# Every step: lists of tokens, all rules counted one by one, and for each rule those of which it is a special case.
Rule = tuple[str, str, tuple[str, ...], tuple[str, ...]]


def bare(tokens: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(re.sub("[012]$", "", token) for token in tokens)


def shared(one: str | tuple[str, ...], other: str | tuple[str, ...]) -> int:
    return max(n for n in range(min(len(one), len(other)) + 1) if one[:n] == other[:n])


def learned(lexicon: dict[str, list[tuple[str, ...]]], seen: int) -> set[Rule]:
    counts: Counter[Rule] = Counter()
    words: Counter[tuple[str, str]] = Counter()
    for one, other in permutations(lexicon, 2):
        for at in range(3, shared(one, other) + 1):
            words[one[at:], other[at:]] += 1
            for x, y in product(lexicon[one], lexicon[other]):
                for n in range(shared(bare(x), bare(y)) + 1):
                    counts[one[at:], other[at:], x[n:], y[n:]] += 1
    return {rule for rule, count in counts.items() if count >= seen and words[rule[:2]] >= seen}


def more_general(rule: Rule) -> set[Rule]:
    one, other, x, y = rule
    return {(one[m:], other[m:], x[n:], y[n:])
            for m in range(shared(one, other) + 1) for n in range(shared(x, y) + 1) if m or n}


def candidates(lexicon: dict[str, list[tuple[str, ...]]], rules: set[Rule],
               word: str) -> Iterator[tuple[Rule, bool, tuple[str, ...]]]:
    found = defaultdict(list)
    for one, other, x, y in rules:
        stem = word.removesuffix(one)
        if word.endswith(one) and len(stem) >= 3 and stem + other in lexicon:
            for base in lexicon[stem + other]:
                if base[len(base) - len(y):] == y and len(y) <= len(base):
                    found[stem + other, base].append(((one, other, x, y), base[:len(base) - len(y)]))
    for here in found.values():
        barred = set().union(*(more_general(rule) for rule, _ in here))
        for rule, kept in here:
            if rule not in barred:
                yield rule, False, kept + rule[2]
                yield rule, True, tuple(token.replace("2", "1") for token in kept) + rule[2]


def step_by_step(lexicon: dict[str, list[tuple[str, ...]]], seen: int,
                  words: list[str]) -> list[list[tuple[float, tuple[str, ...]]]]:
    """(score, tokens) of what rules for endings make of each word."""
    rules = learned(lexicon, seen)
    tries = defaultdict(list)
    for word, own in lexicon.items():
        for rule, lowered, made in candidates(lexicon, rules, word):
            near = bare(made) in map(bare, own)
            tries[rule, lowered].append(1 if made in own else 0.8 if near else 0)
    score = {key: sum(points) / (len(points) + 1) - 1e-5 * key[1] for key, points in tries.items()}
    return [[(round(score.get((rule, lowered), 0), 9), made)
             for rule, lowered, made in candidates(lexicon, rules, word)] for word in words]


@pytest.mark.parametrize("seed", range(8))
def test_each_step(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """On words of two letters and pronunciations that mostly follow them, with other stresses and a few odd ones."""
    monkeypatch.setattr(pronounce, "SEEN", 3)
    draw = random.Random(seed)

    def said(word: str) -> tuple[str, ...]:
        sounds = {"a": ["A1"] * 5 + ["A2", "A2", "E1"], "b": ["B"] * 7 + ["P"]}
        return tuple(draw.choice(sounds[letter]) for letter in word)

    every = ["".join(letters) for n in (3, 4, 5, 6) for letters in product("ab", repeat=n)]
    lexicon = {word: list(dict.fromkeys(said(word) for _ in range(draw.choice((1, 1, 2)))))
               for word in draw.sample(every, 70)}
    words = [word for word in every if word not in lexicon]
    wanted = step_by_step(lexicon, 3, words)
    assert sum(map(len, wanted)) > 200

    phones = pronounce.Phones(token for found in lexicon.values() for tokens in found for token in tokens)
    known = {word: [phones.encode(tokens) for tokens in found] for word, found in lexicon.items()}
    rules = pronounce.Rules(known, phones)
    for word, expected in zip(words, wanted, strict=True):
        made = [(round(score, 9), tuple(phones.decode(one))) for score, one in rules.apply(word)]
        assert sorted(made) == sorted(expected), word
