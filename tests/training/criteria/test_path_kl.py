"""Path KL against the enumeration of every path."""

import torch

from asrcompress.training.criteria import _sequences
from asrcompress.training.criteria.lfmmi import LogZ, denominator
from tests.training.criteria.enumeration import LM, TOKENS, path_scores, posteriors, relative_entropy

EXACT = {"rtol": 0.0, "atol": 1e-10}


def brute_force(teacher, student, lengths, scales=(1.0, 1.0), lm=LM):
    return torch.stack([relative_entropy(path_scores(scales[0] * teacher[n, :length], lm),
                                         path_scores(scales[1] * student[n, :length], lm))
                        for n, length in enumerate(lengths)])


def divergence(teachers, scores, lengths, lm=LM):
    return _sequences.divergence(teachers, scores, LogZ.apply(scores, lengths, lm),
                                 lambda own: denominator(own, lengths, lm))


def masked(log_probs):
    return log_probs.nan_to_num(0.0).requires_grad_()


def test_value_and_gradient_equal_brute_force():
    (teacher, lengths), (student, _) = posteriors(1), posteriors(2)
    teacher, student = masked(teacher).detach(), masked(student)
    found = divergence([1.5 * teacher], 0.8 * student, lengths)
    expected = brute_force(teacher, student, lengths, (1.5, 0.8))
    torch.testing.assert_close(found, expected, **EXACT)
    weights = torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(*(torch.autograd.grad((weights * each).sum(), student)[0]
                                 for each in (found, expected)), **EXACT)


def test_without_a_language_model_it_is_the_sum_of_the_divergences_of_frames():
    (teacher, lengths), (student, _) = posteriors(3), posteriors(4)
    frames = (teacher.exp() * (teacher - student)).sum(-1).nansum(-1)
    found = divergence([masked(teacher).detach()], masked(student), lengths, torch.ones(TOKENS, TOKENS, TOKENS))
    torch.testing.assert_close(found, frames, **EXACT)


def test_several_teachers_are_the_mean_of_their_divergences_and_pull_towards_the_mean_of_their_occupancies():
    (student, lengths), teachers = posteriors(5), [masked(posteriors(seed)[0]).detach() for seed in (6, 7, 8)]
    student = masked(student)
    found = divergence(teachers, student, lengths)
    singles = torch.stack([brute_force(teacher, student, lengths) for teacher in teachers]).mean(0)
    torch.testing.assert_close(found, singles, **EXACT)
    occupancy = torch.stack([denominator(teacher, lengths, LM)[1] for teacher in teachers]).mean(0)
    own = denominator(student, lengths, LM)[1]
    torch.testing.assert_close(torch.autograd.grad(found.sum(), student)[0], own - occupancy, **EXACT)


def test_it_is_zero_for_equal_models_and_positive_in_single_precision():
    teacher, student = ((3 * torch.randn(4, 200, 40, generator=torch.Generator().manual_seed(seed))).log_softmax(-1)
                        for seed in (9, 10))
    lm, lengths = torch.full((40, 40, 40), 1 / 40), torch.tensor([200, 150, 30, 0])
    near = (teacher + 0.01 * student).log_softmax(-1)
    same, close, far = (divergence([teacher], log_probs, lengths, lm) for log_probs in (teacher, near, student))
    assert (same.abs() / lengths.clamp(min=1) < 1e-6).all()
    assert (close[:3] > 0).all() and (far > close)[:3].all() and far[3] == 0
