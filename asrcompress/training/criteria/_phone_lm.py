"""The trigram phone language model of LF-MMI, as one dense tensor.

P[a, b, c] is the probability of c after a, b. Token 0, the CTC blank, is never a phone, so index 0 is free for the
sentence boundary: as a context it is the start (P[0, 0] for the first phone, P[0, b] for the second), as a prediction
it is the end.
"""

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from asrcompress.errors import UserError

MAX_TOKENS = 128  # the tensor is the cube of this, and so is the work of a frame


def estimate(sequences: Iterable[Sequence[int]], tokens: int) -> Tensor:
    """Witten-Bell smoothed trigram (V, V, V) float32 of phone sequences (ids 1 to tokens - 1), V = tokens.

    P(c|ab) = (n(abc) + d(ab) P(c|b)) / (n(ab) + d(ab)), d the number of distinct successors; P(c|b) likewise, down to
    uniform.
    Witten and Bell, "The zero-frequency problem", IEEE Transactions on Information Theory 37(4), 1991.
    """
    counts = count(sequences, tokens)
    probs = torch.full((tokens,), 1.0 / tokens, dtype=torch.float64)
    for ngrams in (counts.sum((0, 1)), counts.sum(0), counts):
        total, distinct = ngrams.sum(-1, keepdim=True), (ngrams > 0).sum(-1, keepdim=True)
        probs = torch.where(total > 0, (ngrams + distinct * probs) / (total + distinct).clamp(min=1), probs)
    return probs.float()


def count(sequences: Iterable[Sequence[int]], tokens: int) -> Tensor:
    """Trigram counts (V, V, V) float64, with two starts before each sequence and one end after it."""
    check_size(tokens)
    counts = np.zeros(tokens**3, np.int64)
    left = iter(sequences)
    while block := list(islice(left, 1000)):  # together: one by one, the transcripts of a large corpus take minutes
        ids = np.array([token for sequence in block for token in (0, 0, *sequence, 0)])
        if ids.min() < 0 or ids.max() >= tokens or (ids == 0).sum() > 3 * len(block):
            wrong = next(sequence for sequence in block if not all(0 < token < tokens for token in sequence))
            raise UserError(f"tokens outside 1 to {tokens - 1}: {list(wrong)[:20]}; use one lang folder")
        ends = np.cumsum([len(sequence) + 3 for sequence in block])
        inside = np.ones(len(ids), np.bool_)
        inside[ends - 1] = inside[ends - 2] = False  # trigrams that begin there run into the next sequence
        trigrams = (ids[:-2] * tokens + ids[1:-1]) * tokens + ids[2:]
        counts += np.bincount(trigrams[inside[:-2]], minlength=tokens**3)
    if not counts.any():
        raise UserError("a phone LM needs at least one training transcript, and there is none")
    return torch.from_numpy(counts).double().view(tokens, tokens, tokens)


def score(lm: Tensor, targets: Tensor, target_lengths: Tensor) -> Tensor:
    """log P (N,) of whole sequences, the end included, for targets (N, U) and target_lengths (N,)."""
    position = torch.arange(targets.shape[1] + 1, device=targets.device)
    lengths = target_lengths.to(targets.device)[:, None]
    # Past its end a sequence is made of 0, so that the first such position predicts the end.
    ids = torch.nn.functional.pad(targets.masked_fill(position[:-1] >= lengths, 0), (2, 1))
    log_probs = lm[ids[:, :-2], ids[:, 1:-1], ids[:, 2:]].log()
    return log_probs.masked_fill(position > lengths, 0.0).sum(1)


def check_size(tokens: int) -> None:
    """Errors: UserError for more tokens than a dense trigram is made for."""
    if tokens > MAX_TOKENS:
        raise UserError(f"LF-MMI needs phone units (at most {MAX_TOKENS} tokens, not {tokens}); use phones, or CTC")
