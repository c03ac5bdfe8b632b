"""LF-MMI against the enumeration of every path and phone sequence."""

import itertools

import pytest
import torch

from asrcompress.errors import UserError
from asrcompress.training import criteria
from asrcompress.training.criteria import _phone_lm as phone_lm
from asrcompress.training.criteria import lfmmi
from tests.training.criteria.enumeration import collapse, lm_log_prob

TOKENS = 4
LM = phone_lm.estimate([[1, 2, 1], [1, 2, 2, 3], [3, 3], [2, 1, 2, 1, 2]], TOKENS)


def brute_force(scores, target=None):
    """Log sum over all V^T paths of P_LM x exp(scores (T, V)); only those that collapse to `target`, if given."""
    frames, tokens = scores.shape
    return torch.stack([scores[range(frames), list(path)].sum() + lm_log_prob(collapse(path), LM)
                        for path in itertools.product(range(tokens), repeat=frames)
                        if target is None or collapse(path) == target]).logsumexp(0)


def example(dtype=torch.float64):
    """Batch of 4 over T = 5, not in the order of length; the third cannot be aligned."""
    logits = 2 * torch.randn(4, 5, TOKENS, generator=torch.Generator().manual_seed(1), dtype=dtype)
    targets = torch.tensor([[1, 2, 2], [3, 1, 1], [1, 1, 2], [2, 0, 0]])
    return logits.log_softmax(-1), torch.tensor([4, 5, 3, 1]), targets, torch.tensor([3, 2, 3, 1])


@pytest.mark.parametrize("normalised", [True, False])
def test_denominator_and_occupancies_equal_brute_force(normalised):
    log_probs, lengths, *_ = example()
    scores = (log_probs if normalised else 3 * log_probs + 50).requires_grad_()
    expected = torch.stack([brute_force(scores[n, :length]) for n, length in enumerate(lengths)])
    log_z, occupancy = lfmmi.denominator(scores, lengths, LM)
    torch.testing.assert_close(log_z, expected)
    torch.testing.assert_close(occupancy, torch.autograd.grad(expected.sum(), scores)[0])


@pytest.mark.parametrize("options", [{}, {"acoustic_scale": 0.5}, {"ctc_weight": 0.3},
                                     {"acoustic_scale": 2.0, "ctc_weight": 1.0}])
def test_loss_and_gradient_equal_brute_force(options):
    log_probs, lengths, targets, counts = example()
    log_probs.requires_grad_()
    scale, weight = options.get("acoustic_scale", 1.0), options.get("ctc_weight", 0.0)
    expected = 0
    for n in (0, 1, 3):
        own, target = log_probs[n, :lengths[n]], targets[n, :counts[n]].tolist()
        expected += brute_force(scale * own) - brute_force(scale * own, target)
        expected -= weight * (brute_force(own, target) - lm_log_prob(target, LM))
    expected = expected / 10
    result = lfmmi.LFMMI(LM, lfmmi.LFMMIOptions(**options))(log_probs, lengths, targets, counts)
    torch.testing.assert_close(result["loss"], expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, log_probs)[0] for value in (result["loss"], expected)))
    assert (int(result["frames"]), int(result["unaligned"])) == (10, 1)
    torch.testing.assert_close(result["mmi"] + weight * result["ctc"], result["loss"].detach())


def test_gradcheck():
    log_probs, *batch = example()
    criterion = lfmmi.LFMMI(LM, lfmmi.LFMMIOptions(ctc_weight=0.2))
    assert torch.autograd.gradcheck(lambda x: criterion(x, *batch)["loss"], log_probs.requires_grad_())


def test_batch_equals_each_alone_and_padding_does_not_matter():
    log_probs, lengths, targets, counts = example()
    padded = torch.cat([log_probs, torch.full_like(log_probs, torch.nan)], 1)
    for n, length in enumerate(lengths):
        padded[n, length:] = torch.nan
    padded.requires_grad_()
    log_z, occupancy = lfmmi.denominator(padded.detach(), lengths, LM)
    for n, length in enumerate(lengths):
        alone, own = lfmmi.denominator(log_probs[n:n + 1, :length], lengths[n:n + 1], LM)
        torch.testing.assert_close((log_z[n:n + 1], occupancy[n:n + 1, :length]), (alone, own))
        assert (occupancy[n, length:] == 0).all()
    criterion = lfmmi.LFMMI(LM)
    result = criterion(padded, lengths, targets, counts)["loss"]
    result.backward()
    torch.testing.assert_close(result, criterion(log_probs, lengths, targets, counts)["loss"])
    assert padded.grad.isfinite().all()


def test_a_frame_is_fully_occupied_and_a_zero_length_is_the_empty_sentence():
    log_probs, *_ = example(torch.float32)
    log_z, occupancy = lfmmi.denominator(log_probs, torch.tensor([5, 0, 2, 5]), LM)
    torch.testing.assert_close(occupancy.sum(-1)[[0, 3]], torch.ones(2, 5))
    assert log_z[1].item() == pytest.approx(LM[0, 0, 0].log().item())


def random_batch(peak, frames=120):
    generator = torch.Generator().manual_seed(2)
    logits = peak * torch.randn(6, frames, TOKENS, generator=generator)
    lengths = torch.randint(frames // 2, frames, (6,), generator=generator)
    counts = torch.randint(1, 15, (6,), generator=generator)
    return logits.log_softmax(-1), lengths, torch.randint(1, TOKENS, (6, 15), generator=generator), counts


@pytest.mark.parametrize("peak", [0.0, 1.0, 30.0])
def test_single_precision_stands_extreme_posteriors(peak):
    log_probs, lengths, *_ = batch = random_batch(peak)
    result = lfmmi.LFMMI(LM)(*batch)["loss"]
    assert result.isfinite() and result >= 0
    exact, rough = (lfmmi.denominator(log_probs.to(dtype), lengths, LM) for dtype in (torch.float64, torch.float32))
    torch.testing.assert_close(rough[0], exact[0], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(rough[1].double(), exact[1], rtol=1e-3, atol=1e-5)


def test_loss_is_not_negative_and_small_for_perfect_posteriors():
    path = torch.tensor([0, 1, 1, 0, 2, 2, 0, 2, 3, 0])
    log_probs = (30.0 * torch.nn.functional.one_hot(path, TOKENS).float()).log_softmax(-1)[None]
    criterion = lfmmi.LFMMI(LM)
    right, wrong = (criterion(log_probs, torch.tensor([10]), torch.tensor([target]), torch.tensor([4]))["loss"].item()
                    for target in ([1, 2, 2, 3], [1, 2, 3, 3]))
    assert -1e-6 <= right < 1e-4 and wrong > 1


def test_autocast_does_not_touch_it():
    log_probs, *batch = random_batch(1.0)
    criterion = lfmmi.LFMMI(LM)
    expected = criterion(log_probs, *batch)["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(criterion(log_probs, *batch)["loss"], expected)


def test_free_training_finds_the_reference():
    log_probs, lengths, targets, counts = random_batch(1.0, frames=40)
    logits = log_probs.clone().requires_grad_()
    sequences = [target[:count].tolist() for target, count in zip(targets, counts, strict=True)]
    criterion = criteria.build("lfmmi", TOKENS, sequences, ctc_weight=0.1)
    optimizer = torch.optim.Adam([logits], lr=0.5)
    for _ in range(30):
        optimizer.zero_grad()
        criterion(logits.log_softmax(-1), lengths, targets, counts)["loss"].backward()
        optimizer.step()
    for n in range(6):
        assert collapse(logits[n, :lengths[n]].argmax(-1).tolist()) == sequences[n]


def test_other_units_are_refused():
    with pytest.raises(UserError, match="phone units"):
        criteria.build("lfmmi", 500, targets=[[1, 2]])
    log_probs, *batch = random_batch(1.0)
    with pytest.raises(UserError, match="one lang"):
        criteria.build("lfmmi", 3, targets=[[1, 2]])(log_probs, *batch)


def test_no_frames_at_all_are_a_zero():
    log_probs = torch.zeros(2, 0, TOKENS, requires_grad=True)
    none = torch.zeros(2, dtype=torch.long)
    criterion = lfmmi.LFMMI(LM, lfmmi.LFMMIOptions(ctc_weight=0.1))
    result = criterion(log_probs, none, torch.ones(2, 1, dtype=torch.long), none)
    result["loss"].backward()
    assert result["loss"] == 0 and int(result["unaligned"]) == 2
