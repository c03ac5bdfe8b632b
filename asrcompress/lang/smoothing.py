"""Smoothing of an ARPA model on a text: how far each order is trusted over the next lower one.

Models with count cut-offs are often estimated from the counts that are left, as if the others had never been: then
next to nothing is kept for what a context has not been seen with, and a language model of millions of words is worse
than one of thousands. Which n-grams were seen stays right; so the orders are mixed anew, as Jelinek and Mercer 1980
do, with weights by the number of n-grams that a context is seen with, fitted to a text by expectation maximisation:

  p'(w | h) = a f(w | h) + (1 - a S(h)) p'(w | shorter h),   S(h) = sum of f(. | h),   0 < a < 1

f is the file's probability where it lists the n-gram and 0 elsewhere. This is again a back-off model that sums to one:
1 - a S(h) is its back-off weight. Below the 1-grams is the uniform distribution over the words.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asrcompress.errors import UserError
from asrcompress.lang.ngram import SENTENCE, UNSEEN_SHARE, ZERO, check_sentences, ngrams, write

BINS = 32           # of contexts of one order: by the binary logarithm of the n-grams that they are seen with
MAX_SENTENCES = 20000  # of the text; every k-th of more
ROUNDS = 30         # of expectation maximisation

Orders = list[dict[str, tuple[float, float]]]  # for each order, by n-gram: probability, back-off weight


class Smoothed(NamedTuple):
    """What `smooth` did: perplexity of the text before and after, mean trust in each order, and the text's words."""

    before: float
    after: float
    trust: list[float]
    words: int

    def __str__(self) -> str:
        trust = ", ".join(f"{share:.2f}" for share in self.trust)
        return (f"perplexity {self.before:,.0f} -> {self.after:,.0f} on {self.words:,} words; "
                f"trust in its orders {trust}")


def smooth(arpa: Path | str, out: Path | str, sentences: Sequence[str]) -> Smoothed:
    """Write `arpa` (plain or .gz) with its orders weighed anew for `sentences` to `out` (plain).

    The text should be none of what the model was trained on. UserError where no word of it is in the model.
    """
    orders = read(arpa)
    contexts = [_contexts(order) for order in orders]
    step = -(-len(sentences) // MAX_SENTENCES) or 1
    text = [(history, word) for sentence in sentences[::step] for history, word in _events(sentence, len(orders))
            if word in orders[0]]
    if all(word == SENTENCE[1] for _, word in text):
        raise UserError(f"no word of the text is in {arpa}; give a text of its language, in the same case")
    bins, listed, sums = _arrays(text, orders, contexts)
    trust, posterior = _fit(bins, listed, sums, len(orders[0]) - 1)
    new = _weighed(orders, contexts, trust)
    write(out, [[f"{_log10(p)}\t{words}" + (f"\t{_log10(b)}" if n < len(orders) else "") + "\n"
                 for words, (p, b) in order.items()] for n, order in enumerate(new, 1)])
    return Smoothed(perplexity(orders, text), perplexity(new, text), posterior, len(text))


def is_cut(arpa: Path | str) -> bool:
    """Whether the file lists n-grams of probability 0, as models with count cut-offs do."""
    return any(float(fields[0]) <= ZERO and fields[1:order + 1] != [SENTENCE[0]] for order, fields in ngrams(arpa))


def read(arpa: Path | str) -> Orders:
    """The whole model; what is listed with ZERO has probability 0."""
    orders: Orders = []
    for order, fields in ngrams(arpa):
        while len(orders) < order:
            orders.append({})
        weight = fields[-1] if len(fields) > order + 1 else "0"
        orders[order - 1][" ".join(fields[1:order + 1])] = _power(fields[0]), _power(weight)
    check_sentences(arpa, orders[0] if orders else ())
    return orders


def perplexity(orders: Orders, text: Sequence[tuple[list[str], str]]) -> float:
    """Of (history, word) pairs, where words of probability 0 share UNSEEN_SHARE as `ngram.restrict` lets them."""
    zero = sum(not p for p, _ in orders[0].values()) - 1  # less <s>
    unseen = UNSEEN_SHARE / max(zero, 1)

    def probability(history: list[str], word: str) -> float:
        found = orders[len(history)].get(" ".join([*history, word]), (0.0, 1.0))[0] if len(history) < len(orders) else 0
        if found or not history:
            return found or unseen
        weight = orders[len(history) - 1].get(" ".join(history), (0.0, 1.0))[1]
        return weight * probability(history[1:], word)

    return math.exp(-sum(math.log(probability(*event)) for event in text) / len(text))


def _power(field: str) -> float:
    return 0.0 if float(field) <= ZERO else 10.0 ** float(field)


def _log10(value: float) -> str:
    return f"{math.log10(value) if value > 0 else ZERO:.6f}"


def _events(sentence: str, order: int) -> Iterator[tuple[list[str], str]]:
    words = [SENTENCE[0], *sentence.split(), SENTENCE[1]]
    return ((words[max(0, i - order + 1):i], words[i]) for i in range(1, len(words)))


def _contexts(order: dict[str, tuple[float, float]]) -> dict[str, tuple[float, int]]:
    """Sum of the probabilities after each context, at most 1, and the bin of its number."""
    found: dict[str, tuple[float, int]] = {}
    for words, (probability, _) in order.items():
        if probability:
            context = words.rpartition(" ")[0]
            total, number = found.get(context, (0.0, 0))
            found[context] = total + probability, number + 1
    return {context: (min(total, 1.0), number.bit_length() - 1) for context, (total, number) in found.items()}


def _arrays(text: Sequence[tuple[list[str], str]], orders: Orders, contexts: Sequence[dict[str, tuple[float, int]]]
            ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """For each event and order: the context's bin, f and S; S = 0 where the context is in no n-gram of that order."""
    bins = np.zeros((len(text), len(orders)), dtype=np.int64)
    listed, sums = np.zeros(bins.shape), np.zeros(bins.shape)
    for i, (history, word) in enumerate(text):
        for n in range(min(len(history) + 1, len(orders))):
            context = history[len(history) - n:]
            sums[i, n], bins[i, n] = contexts[n].get(" ".join(context), (0.0, 0))
            listed[i, n] = orders[n].get(" ".join([*context, word]), (0.0, 0.0))[0]
    return bins + BINS * np.arange(len(orders)), listed, sums


def _fit(bins: NDArray[np.int64], listed: NDArray[np.float64], sums: NDArray[np.float64], words: int
         ) -> tuple[NDArray[np.float64], list[float]]:
    """a for each bin, and the share of the events that came to an order which that order explains.

    One made-up event in each bin, half explained by it, keeps every a inside (0, 1).
    """
    size = BINS * bins.shape[1]
    a = np.full(size, 0.5)
    shares: list[float] = []
    for _ in range(ROUNDS):
        mixed = [np.full(len(bins), 1 / words)]  # p' of each order, from the uniform one up
        for n in range(bins.shape[1]):
            weight = a[bins[:, n]]
            mixed.append(weight * listed[:, n] + (1 - weight * sums[:, n]) * mixed[-1])
        came, own, rest = np.ones(len(bins)), np.full(size, 0.5), []
        shares = []
        for n in reversed(range(bins.shape[1])):
            explained = came * a[bins[:, n]] * listed[:, n] / mixed[n + 1]
            own += np.bincount(bins[:, n], explained, size)
            shares.insert(0, float(explained.sum() / came.sum()))
            came = came - explained
            rest.append(came)
        a = _most_likely(bins, sums, own, np.stack(rest[::-1], 1))
    return a, shares


def _most_likely(bins: NDArray[np.int64], sums: NDArray[np.float64], own: NDArray[np.float64],
                 rest: NDArray[np.float64]) -> NDArray[np.float64]:
    """The a of each bin at which own / a = sum of rest S / (1 - a S): the left side falls, the right one grows."""
    low, high = np.zeros(len(own)), np.ones(len(own))
    for _ in range(30):
        a = (low + high) / 2
        slope = rest * sums / (1 - a[bins] * sums)
        up = own / a > np.bincount(bins.ravel(), slope.ravel(), len(own)) + 0.5 / (1 - a)
        low, high = np.where(up, a, low), np.where(up, high, a)
    return (low + high) / 2


def _weighed(orders: Orders, contexts: Sequence[dict[str, tuple[float, int]]], trust: NDArray[np.float64]) -> Orders:
    """The new model, with the same n-grams."""
    new: Orders = []

    def weight(context: str, n: int) -> tuple[float, float]:
        """a of a context of n words, and the back-off weight that it gets."""
        total, bin_ = contexts[n].get(context, (0.0, 0))
        a = float(trust[BINS * n + bin_])
        return a, 1 - a * total

    def probability(words: str) -> float:
        """p' of the last word after the others, in the orders made so far."""
        n = words.count(" ")
        if n < len(new) and words in new[n]:
            return new[n][words][0]
        return weight(words.rpartition(" ")[0], n)[1] * probability(words.partition(" ")[2])

    for n, order in enumerate(orders):
        made: dict[str, tuple[float, float]] = {}
        for words, (listed, _) in order.items():
            a, below = weight(words.rpartition(" ")[0], n)
            shorter = probability(words.partition(" ")[2]) if n else 1 / (len(order) - 1)
            own = weight(words, n + 1)[1] if n + 1 < len(orders) else 1.0
            made[words] = (a * listed + below * shorter if words != SENTENCE[0] else 0.0), own
        new.append(made)
    return new
