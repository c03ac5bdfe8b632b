"""Pruning of an ARPA model by weighted differences, as IRSTLM's prune-lm does it.

Order by order, from the 2-grams up, an n-gram (h, w) stays where

  P(h, w) (log10 p(w | h) - log10 bo(h) - log10 p(w | h')) > threshold,   h' = h without its first word,

P(h, w) the product of the probabilities that are listed for its prefixes (<s> counts 1), bo(h) the back-off weight as
it was, p(w | h') in the lower orders that are already pruned. What goes on from an n-gram that went goes with it. Then
the back-off weights are set so that every context sums to one again.

Seymore and Rosenfeld, "Scalable backoff language models", ICSLP 1996; Federico, Bertoldi and Cettolo, "IRSTLM",
Interspeech 2008. Kaldi's tgpr of the Wall Street Journal is made so, with a threshold of 1e-7.
"""

from dataclasses import replace

import numpy as np

from asrcompress.errors import UserError
from asrcompress.lang.backoff import Floats, Model, Order, over, size
from asrcompress.lang.ngram import SENTENCE

FULL = 0.999999  # what the probabilities of a context are scaled to where they sum to one or more


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
        order = over(pruned, whole.keep(stays))  # without those whose prefix went
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
