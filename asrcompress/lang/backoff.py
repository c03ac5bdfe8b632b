"""A back-off language model as arrays: what a file of millions of n-grams is computed with.

An n-gram is a row of its order, found by the row of its prefix in the order below and its last word.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asrcompress.errors import UserError
from asrcompress.lang.ngram import SENTENCE, ZERO, check_sentences, ngrams, write

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
        """The n-grams at `rows`, a mask (N,) or numbers (M,); their keys still speak of the order below as it was."""
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


def read(arpa: Path | str, max_order: int = 0) -> Model:
    """The model, up to `max_order` where that is not 0.

    n-grams whose prefix is not listed are left out, as no search comes to them.

    Errors: UserError where the file is no ARPA, lists an n-gram twice, or has n-grams of words without a 1-gram.
    """
    ids: dict[str, int] = {}
    found: list[tuple[list[int], list[float], list[float]]] = []
    for n, fields in ngrams(arpa, max_order):
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
        model.orders.append(over(model, order))
        if len(np.unique(model.orders[-1].key)) < len(model.orders[-1].key) or len(ids) < len(found[0][0]):
            raise UserError(f"{arpa} lists a {n}-gram twice; give a whole ARPA language model")
    return model


def over(lower: Model, order: Order) -> Order:
    """An order with its keys, sorted by them, over the orders below it, without n-grams whose prefix is not there."""
    if order.words.shape[1] == 1:
        return replace(order, key=order.words[:, 0])
    prefix = lower.find(order.words[:, :-1])
    order = replace(order, key=prefix * len(lower.words) + order.words[:, -1]).keep(prefix >= 0)
    return order.keep(np.argsort(order.key, kind="stable"))


def size(model: Model) -> int:
    """The number of n-grams of all orders."""
    return sum(len(order.p) for order in model.orders)


def described(model: Model) -> str:
    """How many n-grams each order has, as text."""
    return ", ".join(f"{len(order.p):,} {n}-grams" for n, order in enumerate(model.orders, 1))


def save(model: Model, out: Path | str) -> None:
    """Write the model as an ARPA file, gzipped where the name ends in .gz."""
    write(out, [_lines(model, n) for n in range(1, len(model.orders) + 1)])


def _lines(model: Model, n: int) -> Sequence[str]:
    order, last = model.orders[n - 1], n == len(model.orders)
    names = [" ".join(model.words[word] for word in words) for words in order.words.tolist()]
    return [f"{max(p, ZERO):.6f}\t{name}\n" if last or not b else f"{max(p, ZERO):.6f}\t{name}\t{b:.6f}\n"
            for p, name, b in zip(order.p.tolist(), names, order.backoff.tolist(), strict=True)]


def perplexity(model: Model, sentences: Iterable[str]) -> tuple[float, int]:
    """The perplexity of sentences, and the number of their words and ends that it is over: words that the model lacks
    are left out, and those after them have no longer history. Errors: UserError where it has none of the words."""
    ids, most = {word: i for i, word in enumerate(model.words)}, len(model.orders)
    events: list[list[list[int]]] = [[] for _ in range(most)]  # by the length of the history
    for sentence in sentences:
        history = [ids[SENTENCE[0]]]
        for word in (*sentence.split(), SENTENCE[1]):
            if word not in ids:
                history = []
                continue
            history = [*history, ids[word]][-most:]
            events[len(history) - 1].append(history)
    scores = np.concatenate([model.log10(np.array(rows)) for rows in events if rows] or [np.zeros(0)])
    if not len(scores):
        raise UserError("the language model has none of the words of the text; give both in the same case")
    return float(10 ** -scores.mean()), len(scores)
