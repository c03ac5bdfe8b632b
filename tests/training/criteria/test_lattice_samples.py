"""Label sequences drawn from the lattice against the enumeration of every path."""

from collections import Counter

import pytest
import torch
from scipy.stats import chi2_contingency, chisquare

from asrcompress.training.criteria import _lattice_samples as lattice_samples
from asrcompress.training.criteria.ctc import alignable
from tests.training.criteria.enumeration import LM, collapse, label_scores, labels, paths, posteriors


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_frequencies_are_those_of_the_enumeration():
    scores, lengths = posteriors(1, (3, 5, 4, 1))  # not in the order of length
    drawn, counts = lattice_samples.draw(1.3 * scores, lengths, LM, 20_000, seeded(0))
    for n, length in enumerate(lengths.tolist()):
        expected = dict(zip(labels(length), label_scores(1.3 * scores[n, :length]).softmax(0).tolist(),
                            strict=True))
        found = Counter(tuple(own[:count]) for own, count in zip(drawn[n].tolist(), counts[n].tolist(), strict=True))
        assert set(found) <= set(expected)
        often = [own for own, share in expected.items() if share * 20_000 > 5]
        rest = [sum(table[own] for own in expected if own not in often) for table in (found, expected)]
        observed = [found[own] for own in often] + [rest[0]] * (rest[1] > 0)
        wanted = [20_000 * expected[own] for own in often] + [20_000 * rest[1]] * (rest[1] > 0)
        assert chisquare(observed, wanted).pvalue > 0.01, n


def test_equal_utterances_of_a_batch_draw_independently():
    scores, lengths = posteriors(2, (5, 5))
    scores[1] = scores[0]
    drawn, _ = lattice_samples.draw(scores, lengths, LM, 5000, seeded(1))
    table = torch.zeros(9, 9, dtype=torch.long)
    first, second = 3 * drawn[:, :, 0] + drawn[:, :, 1]
    table.index_put_((first, second), torch.ones_like(first), accumulate=True)
    table = table[table.sum(1) > 100][:, table.sum(0) > 100]
    assert min(table.shape) > 2 and chi2_contingency(table).pvalue > 0.01


def test_the_generator_decides_and_single_precision_stands_extreme_posteriors():
    logits = 20 * torch.randn(5, 60, 3, generator=seeded(3))
    scores, lengths = logits.log_softmax(-1), torch.tensor([20, 60, 0, 1, 35])
    drawn, counts = lattice_samples.draw(scores, lengths, LM, 7, seeded(4))
    again, _ = lattice_samples.draw(scores, lengths, LM, 7, seeded(4))
    assert torch.equal(drawn, again) and drawn.shape[:2] == counts.shape == (5, 7)
    assert counts[2].max() == 0 and drawn.shape[2] == counts.max()
    rest = [0, 1, 3, 4]
    for k in range(7):
        assert alignable(lengths, drawn[:, k], counts[:, k])[rest].all()
        for own, count in zip(drawn[:, k].tolist(), counts[:, k].tolist(), strict=True):
            assert 0 not in own[:count] and not any(own[count:])


def test_collapse_equals_a_slow_one():
    every = torch.tensor([paths(5)])
    found, counts = lattice_samples.collapse(every)
    assert [own[:count] for own, count in zip(found[0].tolist(), counts[0].tolist(), strict=True)] == \
        [collapse(path) for path in every[0].tolist()]


@pytest.mark.parametrize("weights", [[0.0, 1.0, 3.0, 0.0], [0.0, 0.0, 0.0, 2.0]])
def test_pick_never_takes_what_has_no_weight(weights):
    uniform = torch.linspace(0, 1, 1001, dtype=torch.float64)[:-1]
    found = lattice_samples.pick(torch.tensor(weights), uniform)
    share = torch.tensor(weights) / sum(weights)
    torch.testing.assert_close(found.bincount(minlength=4) / 1000, share, atol=2e-3, rtol=0)
    assert (share[found] > 0).all()
