"""CTC against the enumeration of every path."""

import itertools

import pytest
import torch

from asrcompress.errors import UserError
from asrcompress.training import criteria
from asrcompress.training.criteria import ctc


def collapse(path):
    return [token for token, _ in itertools.groupby(path) if token]


def brute_force(scores, target):
    """Log of the sum over all V^T paths of scores (T, V) that collapse to `target`; differentiable."""
    frames, tokens = scores.shape
    paths = [path for path in itertools.product(range(tokens), repeat=frames) if collapse(path) == target]
    return torch.stack([scores[range(frames), list(path)].sum() for path in paths]).logsumexp(0)


def example(seed=0):
    """Batch of 4 over T = 5, V = 3, of which the last cannot be aligned: (logits, lengths, targets, target_lengths)."""
    logits = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2
    targets = torch.tensor([[1, 2, 2], [2, 1, 1], [1, 1, 1], [1, 1, 2]])
    return logits, torch.tensor([5, 4, 1, 3]), targets, torch.tensor([3, 2, 0, 3])


@pytest.mark.parametrize("normalised", [True, False])
def test_score_and_gradient_equal_brute_force(normalised):
    logits, *batch = example()
    scores = (logits.log_softmax(-1) if normalised else logits).requires_grad_()
    expected = torch.stack([brute_force(scores[n, :length], target[:count].tolist()) if n < 3 else scores.sum() * 0
                            for n, (length, target, count) in enumerate(zip(*batch, strict=True))])
    result = ctc.ctc_score(scores, *batch)
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value.sum(), scores)[0] for value in (result, expected)))


def test_alignable_counts_repeats():
    logits, *batch = example()
    assert ctc.alignable(*batch).tolist() == [True, True, True, False]
    targets = torch.tensor([[1, 1], [1, 1], [1, 2]])
    assert ctc.alignable(torch.tensor([2, 3, 0]), targets, torch.tensor([2, 2, 0])).tolist() == [False, True, False]


@pytest.mark.parametrize("options", [{}, {"prior_scale": 0.5}])
def test_loss_is_the_mean_per_frame_without_the_unaligned(options):
    logits, *batch = example()
    log_probs = logits.log_softmax(-1).requires_grad_()
    criterion = criteria.build("ctc", 3, **options).eval()
    if options:
        criterion.prior = torch.tensor([0.7, 0.2, 0.1])
    result = criterion(log_probs, *batch)
    scores = log_probs - options.get("prior_scale", 0.0) * criterion.prior.double().log()
    expected = -sum(brute_force(scores[n, :batch[0][n]], batch[1][n, :batch[2][n]].tolist()) for n in range(3)) / 10
    torch.testing.assert_close(result["loss"], expected)
    assert (int(result["frames"]), int(result["unaligned"])) == (10, 1)
    torch.testing.assert_close(*(torch.autograd.grad(value, log_probs)[0] for value in (result["loss"], expected)))


def test_nothing_alignable_is_a_zero_with_a_zero_gradient():
    log_probs = torch.randn(2, 2, 3).log_softmax(-1).requires_grad_()
    batch = (torch.tensor([2, 0]), torch.ones(2, 3, dtype=torch.long), torch.tensor([3, 1]))
    result = criteria.build("ctc", 3)(log_probs, *batch)
    result["loss"].backward()
    assert result["loss"] == 0 and result["unaligned"] == 2 and (log_probs.grad == 0).all()


def test_no_frames_at_all_are_a_zero():
    log_probs = torch.zeros(2, 0, 3, requires_grad=True)
    none = torch.zeros(2, dtype=torch.long)
    result = criteria.build("ctc", 3, prior_scale=0.3)(log_probs, none, torch.ones(2, 1, dtype=torch.long), none)
    result["loss"].backward()
    assert result["loss"] == 0 and int(result["unaligned"]) == 2


def test_empty_targets():
    log_probs = torch.randn(1, 4, 3).log_softmax(-1)
    batch = (torch.tensor([4]), torch.zeros(1, 0, dtype=torch.long), torch.tensor([0]))
    result = criteria.build("ctc", 3)(log_probs, *batch)
    torch.testing.assert_close(result["loss"], -log_probs[0, :, 0].mean())


def test_padding_does_not_matter():
    logits, *batch = example()
    criterion = criteria.build("ctc", 3, prior_scale=0.3)
    log_probs = torch.nn.functional.pad(logits.log_softmax(-1), (0, 0, 0, 2), value=torch.nan).requires_grad_()
    loss = criterion(log_probs, *batch)["loss"]
    loss.backward()
    other = criteria.build("ctc", 3, prior_scale=0.3)
    torch.testing.assert_close(loss, other(logits.log_softmax(-1), *batch)["loss"])
    assert (log_probs.grad[:, 5:] == 0).all() and log_probs.grad.isfinite().all()


def test_prior_follows_the_posteriors_in_training_only():
    criterion = criteria.build("ctc", 3, prior_scale=0.3, prior_decay=0.9)
    posterior = torch.tensor([0.8, 0.15, 0.05])
    batch = (posterior.log().repeat(1, 4, 1), torch.tensor([4]), torch.tensor([[1]]), torch.tensor([1]))
    for _ in range(100):
        criterion(*batch)
    torch.testing.assert_close(criterion.prior, posterior, atol=1e-3, rtol=0)
    before = criterion.eval().prior.clone()
    criterion(batch[0].flip(-1), *batch[1:])
    assert torch.equal(criterion.prior, before) and "prior" in criterion.state_dict()


def test_prior_makes_the_blank_rarer():
    """Train free logits on one utterance: with a prior the labels, not the blank, fill most of the frames."""
    def blanks(prior_scale):
        logits = torch.zeros(1, 40, 4, requires_grad=True)
        batch = (torch.tensor([40]), torch.tensor([[1, 2, 3]]), torch.tensor([3]))
        criterion = criteria.build("ctc", 4, prior_scale=prior_scale, prior_decay=0.9)
        optimizer = torch.optim.Adam([logits], lr=0.3)
        for _ in range(40):
            optimizer.zero_grad()
            criterion(logits.log_softmax(-1), *batch)["loss"].backward()
            optimizer.step()
        return logits.softmax(-1)[0, :, 0].mean().item()
    assert blanks(0.5) < blanks(0.0) - 0.1


def test_bad_names_are_sentences():
    for name, options in (("mmi", {}), ("ctc", {"prior": 1}), ("ctc", {"prior_scale": -1.0}),
                          ("lfmmi", {"ctc_weight": -1.0})):
        with pytest.raises(UserError):
            criteria.build(name, 3, **options)
