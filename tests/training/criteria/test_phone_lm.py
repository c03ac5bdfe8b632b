"""The trigram against a calculation by hand and a slow textbook version."""

import math
from collections import Counter

import pytest
import torch

from asrcompress.errors import UserError
from asrcompress.training.criteria import _phone_lm as phone_lm

SEQUENCES = [[1, 2, 1], [1, 2, 2, 3], [3], [2, 1, 2, 1, 2]]


def witten_bell(sequences, tokens, history, token):
    """The definition, counted anew at each call; histories are tuples of 2, 1 or 0 tokens."""
    successors: Counter = Counter()
    for sequence in sequences:
        padded = [0, 0, *sequence, 0]
        for i in range(2, len(padded)):
            if tuple(padded[i - len(history):i]) == history:
                successors[padded[i]] += 1
    lower = witten_bell(sequences, tokens, history[1:], token) if history else 1 / tokens
    total, distinct = sum(successors.values()), len(successors)
    return (successors[token] + distinct * lower) / (total + distinct) if total else lower


def test_every_context_sums_to_one():
    lm = phone_lm.estimate(SEQUENCES, 5)
    torch.testing.assert_close(lm.sum(-1), torch.ones(5, 5))
    assert (lm > 0).all()


def test_hand_calculation():
    # One sentence "1": unigrams 1 and end, once each, V = 3: P(1) = (1 + 2/3) / 4 = 5/12. After the start
    # (1 + 5/12) / 2 = 17/24, after two (1 + 17/24) / 2 = 41/48. Not seen: (1, 1), and 1 before anything but the end.
    lm = phone_lm.estimate([[1]], 3)
    assert lm[0, 0, 1].item() == pytest.approx(41 / 48)
    assert lm[1, 1, 1].item() == pytest.approx(5 / 24)


def test_equals_the_definition():
    lm = phone_lm.estimate(iter(SEQUENCES), 5)
    for a, b, c in torch.cartesian_prod(*[torch.arange(5)] * 3).tolist():
        assert lm[a, b, c].item() == pytest.approx(witten_bell(SEQUENCES, 5, (a, b), c), rel=1e-5)


def test_many_sequences_are_counted_as_one_by_one():
    sequences = 500 * [*SEQUENCES, []]
    assert torch.equal(phone_lm.count(sequences, 5), 500 * phone_lm.count([*SEQUENCES, []], 5))
    assert torch.equal(phone_lm.count(SEQUENCES, 5), sum(phone_lm.count([sequence], 5) for sequence in SEQUENCES))


def test_score_of_padded_sequences():
    lm = phone_lm.estimate(SEQUENCES, 5)
    targets = torch.tensor([[1, 2, 3], [2, 4, 4], [3, 3, 3]])
    p = lm.tolist()
    expected = [p[0][0][1] * p[0][1][2] * p[1][2][3] * p[2][3][0], p[0][0][2] * p[0][2][0], p[0][0][0]]
    scores = phone_lm.score(lm, targets, torch.tensor([3, 1, 0]))
    torch.testing.assert_close(scores, torch.tensor([math.log(value) for value in expected]))


def test_bad_input_is_a_sentence():
    for call in (lambda: phone_lm.estimate([[1, 5]], 5), lambda: phone_lm.estimate([[0]], 5),
                 lambda: phone_lm.estimate([], 5), lambda: phone_lm.estimate([[1]], 500)):
        with pytest.raises(UserError):
            call()
