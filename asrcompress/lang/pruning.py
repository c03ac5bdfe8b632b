"""Pruning of an ARPA model by weighted differences, as IRSTLM's prune-lm does it.

Order by order, from the 2-grams up, an n-gram (h, w) stays where

  P(h, w) (log10 p(w | h) - log10 bo(h) - log10 p(w | h')) > threshold,   h' = h without its first word,

P(h, w) the product of the probabilities that are listed for its prefixes (<s> counts 1), bo(h) the back-off weight as
it was, p(w | h') in the lower orders that are already pruned. What goes on from an n-gram that went goes with it. Then
the back-off weights are set so that every context sums to one again.

Seymore and Rosenfeld, "Scalable backoff language models", ICSLP 1996; Federico, Bertoldi and Cettolo, "IRSTLM",
Interspeech 2008. Kaldi's tgpr of the Wall Street Journal is made so, with a threshold of 1e-7.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asrcompress.errors import UserError
from asrcompress.lang.ngram import SENTENCE, ZERO, check_sentences, ngrams, write

FULL = 0.999999  # what the probabilities of a context are scaled to where they sum to one or more
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Order:
    """The N n-grams of one order, sorted by `key`, the row of the prefix in the order below times the words, plus the
    last word; for 1-grams it is the word. `p` and `backoff` are log10."""

    words: Ints  # [N, order]
    key: Ints    # [N]
    p: Floats    # [N]
    backoff: Floats  # [N]; 0 where none is listed

    def keep(self, rows: NDArray[np.bool_] | Ints) -> "Order":
        """Some of the n-grams; their keys still speak of the order below as it was."""
        return Order(self.words[rows], self.key[rows], self.p[rows], self.backoff[rows])


@dataclass(frozen=True)
class Model:
    """A back-off model: the words, and its orders from the 1-grams up."""

    words: list[str]
    orders: list[Order]

    def find(self, words: Ints) -> Ints:
        """The rows of n-grams [N, n] in their order, -1 where one is not listed."""
        found = words[:, 0]
        for n in range(1, words.shape[1]):
            key = np.where(found < 0, -1, found * len(self.words) + words[:, n])
            order = self.orders[n]
            at = np.minimum(np.searchsorted(order.key, key), max(len(order.key) - 1, 0))
            found = np.where(order.key[at] == key, at, -1) if len(order.key) else np.full(len(key), -1)
        return found

    def log10(self, words: Ints) -> Floats:
        """log10 probability of the last of words [N, n] after the others, backing off where they are not listed."""
        n = words.shape[1]
        rows = self.find(words)
        if n == 1:
            return self.orders[0].p[rows]
        contexts = self.find(words[:, :-1])
        weight = np.where(contexts < 0, 0.0, self.orders[n - 2].backoff[contexts])
        listed = self.orders[n - 1].p[rows] if len(self.orders[n - 1].p) else np.zeros(len(rows))
        return np.where(rows < 0, weight + self.log10(words[:, 1:]), listed)


def read(arpa: Path | str) -> Model:
    """The whole model. n-grams whose prefix is not listed are left out, as no search comes to them.

    Errors: UserError where the file is no ARPA, lists an n-gram twice, or has n-grams of words without a 1-gram.
    """
    ids: dict[str, int] = {}
    found: list[tuple[list[int], list[float], list[float]]] = []
    for n, fields in ngrams(arpa):
        if n > len(found):
            found.append(([], [], []))
        words, p, backoff = found[n - 1]
        if n == 1:
            ids[fields[1]] = len(ids)
        try:
            words.extend([ids[word] for word in fields[1:n + 1]])
        except KeyError as missing:
            raise UserError(f"{arpa}: a {n}-gram has the word {missing}, which has no 1-gram; give a whole ARPA "
                            "language model") from None
        p.append(float(fields[0]))
        backoff.append(float(fields[-1]) if len(fields) > n + 1 else 0.0)
    check_sentences(arpa, ids)
    model = Model(list(ids), [])
    for n, (words, p, backoff) in enumerate(found, 1):
        order = Order(np.array(words, dtype=np.int64).reshape(-1, n), np.array(0), np.array(p), np.array(backoff))
        model.orders.append(_sorted(model, order))
        if len(np.unique(model.orders[-1].key)) < len(model.orders[-1].key) or len(ids) < len(found[0][0]):
            raise UserError(f"{arpa} lists a {n}-gram twice; give a whole ARPA language model")
    return model


def _sorted(lower: Model, order: Order) -> Order:
    """An order with its keys, sorted by them, over the orders below it, without n-grams whose prefix is not there."""
    if order.words.shape[1] == 1:
        return replace(order, key=order.words[:, 0])
    prefix = lower.find(order.words[:, :-1])
    order = replace(order, key=prefix * len(lower.words) + order.words[:, -1]).keep(prefix >= 0)
    return order.keep(np.argsort(order.key, kind="stable"))


def prune(model: Model, threshold: float) -> Model:
    """The model without the n-grams whose weighted difference is at most `threshold`."""
    pruned = Model(model.words, [model.orders[0]])
    for n in range(2, len(model.orders) + 1):
        whole = model.orders[n - 1]
        # Back-off weights of the contexts as they were stand in `model`, the lower probabilities in `pruned`.
        contexts = model.find(whole.words[:, :-1])
        lower = pruned.log10(whole.words[:, 1:])
        difference = whole.p - model.orders[n - 2].backoff[contexts] - lower
        stays = 10 ** _joint(model, whole) * difference > threshold
        order = _sorted(pruned, whole.keep(stays))  # without those whose prefix went
        pruned.orders.append(order)
        _normalise(pruned)
    return pruned


def _joint(model: Model, order: Order) -> Floats:
    """log10 of the product of the probabilities listed for an n-gram and its prefixes; <s> counts 1."""
    first = model.orders[0].p.copy()
    first[model.words.index(SENTENCE[0])] = 0
    total = first[order.words[:, 0]] + order.p
    for n in range(2, order.words.shape[1]):
        total = total + model.orders[n - 1].p[model.find(order.words[:, :n])]
    return total


def _normalise(model: Model) -> None:
    """Set the back-off weights of the contexts of the model's highest order; its probabilities are scaled where those
    of a context sum to one or more."""
    n = len(model.orders)
    order, below = model.orders[-1], model.orders[-2]
    context = order.key // len(model.words)
    lower = np.bincount(context, 10 ** model.log10(order.words[:, 1:]), len(below.p))
    listed = np.bincount(context, 10 ** order.p, len(below.p))
    if (over := listed >= 1).any():
        scale = np.where(over, FULL / np.where(over, listed, 1), 1)
        order = replace(order, p=np.where(over[context], order.p + np.log10(scale[context]), order.p))
        listed = np.where(over, FULL, listed)
    left = 1 - lower
    # Where the lower order gives the listed words everything, nothing is left to weigh.
    weight = np.where(left > 0, (1 - listed) / np.where(left > 0, left, 1), 1)
    model.orders[n - 1] = order
    model.orders[n - 2] = replace(below, backoff=np.log10(weight))


def prune_to(model: Model, count: int) -> tuple[Model, float]:
    """The model pruned at the lowest threshold, to three digits, that leaves at most `count` n-grams; the threshold.

    Errors: UserError where the 1-grams alone are more, or where it has no more than `count`.
    """
    if not len(model.words) < count < size(model):
        raise UserError(f"pruning to {count:,} n-grams is not possible: the model has {size(model):,}, "
                        f"{len(model.words):,} of them 1-grams")
    low, high = -20.0, 0.0  # log10 of thresholds that keep too many, and few enough
    while high - low > 0.0005:
        middle = (low + high) / 2
        low, high = (middle, high) if size(prune(model, 10 ** middle)) > count else (low, middle)
    return prune(model, 10 ** high), 10 ** high


def size(model: Model) -> int:
    """The number of n-grams of all orders."""
    return sum(len(order.p) for order in model.orders)


def save(model: Model, out: Path | str) -> list[int]:
    """Write the model as an ARPA file, gzipped where the name ends in .gz; the n-grams of each order."""
    write(out, [_lines(model, n) for n in range(1, len(model.orders) + 1)])
    return [len(order.p) for order in model.orders]


def _lines(model: Model, n: int) -> Sequence[str]:
    order, last = model.orders[n - 1], n == len(model.orders)
    names = [" ".join(model.words[word] for word in words) for words in order.words.tolist()]
    return [f"{max(p, ZERO):.6f}\t{name}\n" if last or not b else f"{max(p, ZERO):.6f}\t{name}\t{b:.6f}\n"
            for p, name, b in zip(order.p.tolist(), names, order.backoff.tolist(), strict=True)]
