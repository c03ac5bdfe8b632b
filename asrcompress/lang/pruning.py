"""Pruning of an ARPA model by weighted differences, as IRSTLM's prune-lm does it.

Order by order, from the 2-grams up, an n-gram (h, w) stays where

  P(h, w) (log10 p(w | h) - log10 bo(h) - log10 p(w | h')) > threshold,   h' = h without its first word,

P(h, w) the product of the probabilities that are listed for its prefixes (<s> counts 1), bo(h) the back-off weight as
it was, p(w | h') in the lower orders that are already pruned. What goes on from an n-gram that went goes with it. Where
the probabilities that stay in a context sum to one or more, they are scaled to a sum of FULL, and the context is pruned
once more. Then the back-off weights are set so that every context sums to one again.

Seymore and Rosenfeld, "Scalable backoff language models", ICSLP 1996; Federico, Bertoldi and Cettolo, "IRSTLM",
Interspeech 2008. Kaldi's tgpr of the Wall Street Journal is made so, with a threshold of 1e-7.
"""

from dataclasses import replace

import numpy as np

from asrcompress.errors import UserError
from asrcompress.lang.backoff import Model, over, size
from asrcompress.lang.ngram import SENTENCE

FULL = 0.999999


def prune(model: Model, threshold: float) -> Model:
    """The model without the n-grams whose weighted difference is at most `threshold`.

    Errors: UserError where the threshold is negative or no number.
    """
    if not threshold >= 0:
        raise UserError(f"{threshold} is no threshold to prune at; give a number such as 1e-7, or 0")
    pruned = Model(model.words, [model.orders[0]])
    joint = model.orders[0].p.copy()  # log10 P of the n-grams of the highest order of `pruned`
    joint[model.words.index(SENTENCE[0])] = 0
    for whole in model.orders[1:]:
        order, contexts = over(pruned, whole), pruned.orders[-1]  # the order is without those whose prefix went
        context = order.key // len(model.words)
        lower = pruned.log10(order.words[:, 1:])
        backed_off = contexts.backoff[context] + lower
        p, stays, full = order.p, np.ones(len(order.p), dtype=bool), np.ones(1, dtype=bool)
        while full.any():
            stays &= 10 ** (joint[context] + p) * (p - backed_off) > threshold
            listed = np.bincount(context, stays * 10 ** p, len(contexts.p))
            full = listed >= 1
            p = p + np.log10(FULL / np.where(full, listed, FULL))[context]
        left = 1 - np.bincount(context, stays * 10 ** lower, len(contexts.p))
        # Where the lower order gives the listed words everything, nothing is left to weigh.
        weight = np.where(left > 0, (1 - listed) / np.where(left > 0, left, 1), 1)
        listing = np.bincount(context, minlength=len(contexts.p)) > 0  # others keep their weight
        pruned.orders[-1] = replace(contexts, backoff=np.where(listing, np.log10(weight), contexts.backoff))
        pruned.orders.append(replace(order, p=p).keep(stays))
        joint = (joint[context] + p)[stays]
    return pruned


def prune_to(model: Model, count: int) -> tuple[Model, float]:
    """The model pruned at the lowest threshold, to three digits, that leaves at most `count` n-grams; the threshold.

    Errors: UserError where the 1-grams alone are as many, or where it has no more than `count`.
    """
    if not len(model.words) < count < size(model):
        raise UserError(f"pruning to {count:,} n-grams is not possible: the model has {size(model):,}, "
                        f"{len(model.words):,} of them 1-grams")
    low, high = -20.0, 3.0  # log10 of thresholds that keep too many, and nothing but 1-grams
    while high - low > 0.0005:
        middle = (low + high) / 2
        low, high = (middle, high) if size(prune(model, 10 ** middle)) > count else (low, middle)
    return prune(model, 10 ** high), 10 ** high
