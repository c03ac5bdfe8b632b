"""Distillation against scipy's relative entropy."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import nn

from asrcompress import models, precision
from asrcompress.training.criteria.distillation import Distillation

VOCAB = 6
UNUSED = (torch.zeros(3, 0).long(), torch.zeros(3).long(), ["a", "b", "c"])  # targets, their lengths, ids


def tdnn(seed, vocab=VOCAB):
    torch.manual_seed(seed)
    return models.build({"model": "tdnn", "features": 80, "vocab": vocab, "dropout": 0.1,
                         "stack": [{"dim": 8, "taps": 5, "stride": 2}, {"dim": 8, "taps": 3, "stride": 2}]})


def speech():
    return torch.randn(3, 60, 80, generator=torch.Generator().manual_seed(0)), torch.tensor([60, 52, 40])


def test_loss_is_the_mean_relative_entropy_of_the_frames_that_count():
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
    assert all(parameter.grad.isfinite().all() for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_student_that_follows_its_teacher_gets_nearer():
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
