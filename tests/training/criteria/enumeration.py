"""Every path over a few frames and tokens: what the tests of LF-MMI and of distillation over lattices sum over."""

import itertools

import torch

from asrcompress.training.criteria import _phone_lm as phone_lm

TOKENS = 3
LM = phone_lm.estimate([[1, 2, 1], [1, 2, 2], [2, 1, 2, 1, 2]], TOKENS).double()


def collapse(path):
    return [token for token, _ in itertools.groupby(path) if token]


def lm_log_prob(sequence, lm):
    padded = [0, 0, *sequence, 0]
    return sum(lm[padded[i - 2], padded[i - 1], padded[i]].double().log() for i in range(2, len(padded)))


def paths(frames, tokens=TOKENS):
    """All tokens^frames paths."""
    return list(itertools.product(range(tokens), repeat=frames))


def labels(frames, tokens=TOKENS):
    """The label sequences of these paths, each with the indices of its paths."""
    found = {}
    for i, path in enumerate(paths(frames, tokens)):
        found.setdefault(tuple(collapse(path)), []).append(i)
    return found


def path_scores(scores, lm=LM):
    """log(P_LM x exp(scores)) of every path, for scores (T, V); lm = None: without P_LM."""
    frames, tokens = scores.shape
    every = paths(frames, tokens)
    weights = torch.stack([lm_log_prob(collapse(path), lm) for path in every]) if lm is not None else 0.0
    return scores[torch.arange(frames), torch.tensor(every)].sum(1) + weights


def label_scores(scores, lm=LM):
    """The same, summed over the paths of each label sequence, in the order of `labels`."""
    each = path_scores(scores, lm)
    return torch.stack([each[own].logsumexp(0) for own in labels(*scores.shape).values()])


def relative_entropy(teacher, student):
    """KL in nats of two unnormalised log distributions."""
    p, q = teacher.log_softmax(0), student.log_softmax(0)
    return (p.exp() * (p - q)).sum()


def posteriors(seed, lengths=(4, 3, 1), tokens=TOKENS):
    """Log posteriors (N, T, V) float64 with NaN past the lengths, and the lengths."""
    logits = 1.5 * torch.randn(len(lengths), max(lengths), tokens, generator=torch.Generator().manual_seed(seed),
                               dtype=torch.float64)
    for n, length in enumerate(lengths):
        logits[n, length:] = torch.nan
    return logits.log_softmax(-1), torch.tensor(lengths)
