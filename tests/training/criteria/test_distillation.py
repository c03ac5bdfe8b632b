"""Distillation against scipy's relative entropy, and against sums over tokens in numpy."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, logsumexp
from scipy.stats import entropy
from torch import Tensor, nn

from asrcompress import models, precision
from asrcompress.errors import UserError
from asrcompress.training.criteria.distillation import Distillation, DistillationOptions

VOCAB = 6
UNUSED = (torch.zeros(3, 0).long(), torch.zeros(3).long(), ["a", "b", "c"])  # targets, their lengths, ids


def tdnn(seed: int) -> models.AcousticModel:
    torch.manual_seed(seed)
    return models.build({"model": "tdnn", "features": 80, "vocab": VOCAB, "dropout": 0.1,
                         "stack": [{"dim": 8, "taps": 5, "stride": 2}, {"dim": 8, "taps": 3, "stride": 2}]})


def speech() -> tuple[Tensor, Tensor]:
    return torch.randn(3, 60, 80, generator=torch.Generator().manual_seed(0)), torch.tensor([60, 52, 40])


def posteriors(seed: int, vocab: int, sharpness: float = 4.0) -> Tensor:
    """(2, 7, vocab) in float64; the second utterance has 5 frames."""
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(2, 7, vocab, generator=generator, dtype=torch.float64)).log_softmax(2)


LENGTHS = torch.tensor([7, 5])


def soft(wanted: list[Tensor], log_probs: Tensor, **options: Any) -> Tensor:
    criterion = Distillation({}, log_probs.shape[2], DistillationOptions(**options))
    return criterion.soft(wanted, log_probs, LENGTHS, *UNUSED[:2])


def test_loss_is_the_mean_relative_entropy_of_the_frames_that_count() -> None:
    teacher, student, (x, lens) = tdnn(0), tdnn(1).eval(), speech()
    log_probs, lengths = student(x, lens)
    result = Distillation({"t": teacher}, VOCAB)(log_probs, lengths, x, lens, *UNUSED)
    with torch.no_grad(), precision.autocast("cpu"):
        wanted = teacher(x, lens)[0].double().exp().numpy()
    given = log_probs.detach().double().exp().numpy()
    frames = [entropy(wanted[n, t], given[n, t]) for n in range(3) for t in range(int(lengths[n]))]
    assert result["loss"].item() == pytest.approx(np.mean(frames), rel=1e-4)
    assert int(result["frames"]) == len(frames) == int(lengths.sum())
    result["loss"].backward()
    assert all(parameter.grad.isfinite().all() for parameter in student.parameters())  # type: ignore[union-attr]
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_student_that_follows_its_teacher_gets_nearer() -> None:
    teacher, student, (x, lens) = tdnn(0), tdnn(1).eval(), speech()
    criterion = Distillation({"t": teacher}, VOCAB)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = criterion(*student(x, lens), x, lens, *UNUSED)["loss"]
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("vocab", [5, 9, 30])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_temperature_against_sums_over_tokens(vocab: int, temperature: float) -> None:
    teacher, student = posteriors(0, vocab), posteriors(1, vocab)
    wanted = [0.0, 0.0]
    for n, t in np.argwhere(np.arange(7) < LENGTHS.numpy()[:, None]):
        y, z = teacher[n, t].numpy(), student[n, t].numpy()
        if temperature > 1 and vocab > 9:
            order = np.argsort(-y)
            best, rest = order[:8], order[8:]
            y, z = (np.append(one[best], logsumexp(one[rest])) for one in (y, z))
        p, q = (np.exp(log_softmax(one / temperature)) for one in (y, z))
        wanted[n] += temperature**2 * entropy(p, q)
    np.testing.assert_allclose(soft([teacher], student, temperature=temperature), wanted, rtol=1e-10)


@pytest.mark.parametrize("vocab", [6, 30])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_where_both_agree_loss_and_gradient_are_zero(vocab: int, temperature: float) -> None:
    student = posteriors(0, vocab).requires_grad_()
    loss = soft([student.detach()], student.log_softmax(2), temperature=temperature)
    loss.sum().backward()
    assert loss.abs().max() < 1e-12 and student.grad is not None and student.grad.abs().max() < 1e-12


def test_a_high_temperature_matches_centred_logits() -> None:
    teacher, student = posteriors(0, VOCAB), posteriors(1, VOCAB).requires_grad_()
    soft([teacher], student, temperature=1e5).sum().backward()
    difference = (student - teacher).detach()
    expected = (difference - difference.mean(2, keepdim=True)) / VOCAB
    expected[1, 5:] = 0.0
    torch.testing.assert_close(student.grad, expected, rtol=0, atol=1e-4)


def test_several_teachers_are_the_mean_of_their_posteriors() -> None:
    teachers, student = [posteriors(seed, VOCAB) for seed in range(3)], posteriors(9, VOCAB)
    mean = sum(one.exp() for one in teachers) / 3
    wanted = [sum(entropy(mean[n, t], student[n, t].exp()) for t in range(LENGTHS[n])) for n in range(2)]
    np.testing.assert_allclose(soft(teachers, student), wanted, rtol=1e-10)


def test_spikes_a_frame_apart_leave_the_mixture_a_blank_winner() -> None:
    early, late = (torch.full((2, 7, VOCAB), 0.01).double() for _ in range(2))
    for one, spike in ((early, 2), (late, 3)):
        one[:, :, 0] = 0.95
        one[:, spike] = torch.tensor([0.1, 0.02, 0.82, 0.02, 0.02, 0.02])
    assert all((one.argmax(2) == 2).any() for one in (early, late))
    student = ((early + late) / 2).log()
    assert (student.argmax(2) == 0).all()
    torch.testing.assert_close(soft([early.log(), late.log()], student), torch.zeros(2).double(), rtol=0, atol=1e-12)


def test_near_frames_are_unsure_ones_and_those_beside_a_spike() -> None:
    blank = torch.tensor([0.999, 0.999, 0.2, 0.999, 0.999, 0.98, 0.999]).double()
    teacher = torch.full((2, 7, VOCAB), 1e-12).double()
    teacher[:, :, 0], teacher[:, :, 3] = blank, 1 - blank
    teacher[1, 5:] = torch.tensor([1e-12, 1, 1e-12, 1e-12, 1e-12, 1e-12])  # padding that looks like a spike
    student = posteriors(1, VOCAB)
    frames = [entropy(teacher[0, t], student[0, t].exp()) for t in (1, 2, 3, 5)]
    padded = [entropy(teacher[1, t], student[1, t].exp()) for t in (1, 2, 3)]
    np.testing.assert_allclose(soft([teacher.log()], student, frames="near"), [sum(frames), sum(padded)], rtol=1e-6)


def test_errors() -> None:
    with pytest.raises(UserError, match="temperature is 0.5; it is at least 1"):
        DistillationOptions(temperature=0.5)
