"""Alignment KL against the enumeration of the alignments of a reference."""

import torch

from asrcompress.training.criteria import _sequences
from asrcompress.training.criteria.alignment_kl import numerator
from asrcompress.training.criteria.ctc import ctc_score
from tests.training.criteria.enumeration import labels, path_scores, posteriors, relative_entropy

EXACT = {"rtol": 0.0, "atol": 1e-10}
TARGETS, COUNTS = torch.tensor([[1, 2, 0], [1, 1, 0], [2, 1, 2]]), torch.tensor([2, 2, 3])  # the third has 1 frame


def brute_force(teacher, student, lengths, scales):
    each = []
    for n, length in enumerate(lengths):
        own = labels(int(length)).get(tuple(TARGETS[n, : COUNTS[n]].tolist()), [0])
        each.append(relative_entropy(*(path_scores(scale * scores[n, :length], None)[own]
                                       for scale, scores in zip(scales, (teacher, student), strict=True))))
    return torch.stack(each)


def divergence(teachers, scores, *batch):
    return _sequences.divergence(teachers, scores, ctc_score(scores, *batch), lambda own: numerator(own, *batch))


def models(*seeds):
    return [posteriors(seed, (5, 4, 1))[0].nan_to_num(0.0).requires_grad_() for seed in seeds], torch.tensor([5, 4, 1])


def test_value_and_gradient_equal_brute_force_and_what_cannot_be_aligned_is_zero():
    (teacher, other, student), lengths = models(1, 2, 3)
    found = divergence([1.5 * teacher, 1.5 * other], 0.8 * student, lengths, TARGETS, COUNTS)
    expected = sum(brute_force(one.detach(), student, lengths, (1.5, 0.8)) for one in (teacher, other)) / 2
    torch.testing.assert_close(found, expected, **EXACT)
    assert found[0] > 0 and found[2] == 0
    gradients = [torch.autograd.grad(each.sum(), student)[0] for each in (found, expected)]
    torch.testing.assert_close(*gradients, **EXACT)


def test_it_is_zero_for_equal_models_and_does_not_see_a_constant_of_a_frame():
    (teacher, student), lengths = models(4, 5)
    assert divergence([teacher], teacher, lengths, TARGETS, COUNTS).abs().max() < 1e-12
    shift = torch.randn(2, 3, 5, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    torch.testing.assert_close(divergence([teacher + shift[0]], student + shift[1], lengths, TARGETS, COUNTS),
                               divergence([teacher], student, lengths, TARGETS, COUNTS), **EXACT)


def test_it_works_where_gradients_are_off():
    (teacher, student), lengths = models(7, 8)
    expected = divergence([teacher], student, lengths, TARGETS, COUNTS).detach()
    with torch.no_grad():
        torch.testing.assert_close(divergence([teacher], student, lengths, TARGETS, COUNTS), expected)
