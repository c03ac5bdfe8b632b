"""Label KL against the enumeration of every path and label sequence."""

import pytest
import torch

from asrcompress.errors import UserError
from asrcompress.training.criteria import _lattice_samples as lattice_samples
from asrcompress.training.criteria.label_kl import LabelKLOptions, sampled_score
from asrcompress.training.criteria.lfmmi import LogZ
from tests.training.criteria.enumeration import LM, label_scores, labels, posteriors, relative_entropy
from tests.training.criteria.test_alignment_kl import divergence as alignment_divergence
from tests.training.criteria.test_path_kl import divergence as path_divergence

EXACT = {"rtol": 0.0, "atol": 1e-10}
TEACHER, STUDENT = (scale * posteriors(seed, (4,))[0] for seed, scale in ((1, 1.5), (2, 0.8)))
LENGTHS = torch.tensor([4])
Q = label_scores(TEACHER[0]).softmax(0)
SEQUENCES = [list(sequence) for sequence in labels(4)]
COUNTS = torch.tensor([[len(sequence) for sequence in SEQUENCES]])
PADDED = torch.tensor([[sequence + [0] * (4 - len(sequence)) for sequence in SEQUENCES]])


def test_scores_of_samples_equal_brute_force():
    expected = label_scores(STUDENT[0])
    each = [sampled_score(PADDED[:, k:k + 1], COUNTS[:, k:k + 1], STUDENT, LENGTHS, LM) for k in range(len(expected))]
    torch.testing.assert_close(torch.cat(each), expected, **EXACT)
    together = sampled_score(PADDED, COUNTS, STUDENT, LENGTHS, LM)
    torch.testing.assert_close(together[0], expected.mean(), **EXACT)
    nothing = sampled_score(PADDED[:, :1, :0], COUNTS[:, :1] * 0, STUDENT, LENGTHS, LM)
    torch.testing.assert_close(nothing[0], expected[SEQUENCES.index([])], **EXACT)


def test_loss_and_gradient_of_2000_draws_are_those_of_the_divergence_of_labels():
    student = STUDENT.clone().requires_grad_()
    log_p = label_scores(student[0]).log_softmax(0)
    exact = relative_entropy(Q.log(), log_p) - (Q * Q.log()).sum()
    labels, counts = lattice_samples.draw(TEACHER, LENGTHS, LM, 2000, torch.Generator().manual_seed(0))
    found = (LogZ.apply(student, LENGTHS, LM) - sampled_score(labels, counts, student, LENGTHS, LM)).sum()
    assert abs(found - exact) < 3 * sigma(log_p[:, None]) / 2000**0.5
    each = torch.stack([torch.autograd.grad(one, student, retain_graph=True)[0].flatten() for one in log_p])
    found, exact = (torch.autograd.grad(loss, student)[0].flatten() for loss in (found, exact))
    assert ((found - exact).abs() < 3 * sigma(each) / 2000**0.5 + 1e-12).all()
    assert exact.abs().max() > 10 * (found - exact).abs().max()


def sigma(values):
    """Standard deviations (D,) of values (labels, D) under Q."""
    return (Q @ values**2 - (Q @ values) ** 2).clamp(min=0).sqrt()


def test_divergence_of_paths_is_that_of_labels_and_of_the_alignments_within_them():
    paths = path_divergence([TEACHER], STUDENT, LENGTHS)[0]
    whole = relative_entropy(label_scores(TEACHER[0]), label_scores(STUDENT[0]))
    teacher, student = (scores.expand(len(Q), -1, -1) for scores in (TEACHER, STUDENT))
    within = alignment_divergence([teacher], student, LENGTHS.expand(len(Q)), PADDED[0], COUNTS[0])
    torch.testing.assert_close(paths, whole + Q @ within, **EXACT)
    assert paths > whole > 0.01 and (within > -1e-12).all()


@pytest.mark.parametrize("options", [{"samples": 0}, {"samples": 4, "teacher": ("a", "b", "c")}])
def test_teachers_count_equally(options):
    with pytest.raises(UserError, match="samples is"):
        LabelKLOptions(**options)
    assert LabelKLOptions(teacher=("a", "b")).samples == 4
