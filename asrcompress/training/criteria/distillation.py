"""Distillation: a student follows the posteriors of a teacher, frame by frame, and needs no transcripts for it."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from asrcompress.compression.distil import frame_divergence
from asrcompress.options import require
from asrcompress.training.criteria._teaching import Teaching, TeachingOptions
from asrcompress.training.criteria.ctc import valid_frames

BEST = 8  # tokens that stay apart at a temperature above 1
SURE = 0.99  # probability of the blank from which on a frame says nothing but blank


@dataclass(frozen=True)
class DistillationOptions(TeachingOptions):
    """Whom to follow, and how."""

    temperature: float = 1.0  # above 1 the teacher's best tokens are closer to each other
    frames: Literal["all", "near"] = "all"  # near: without the frames where the teacher is sure of the blank

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.temperature >= 1,
                f"criterion distillation: temperature is {self.temperature:g}; it is at least 1")


class Distillation(Teaching):
    """tau^2 KL(p^T_tau || p^S_tau) summed over frames: never negative, zero where the two agree.

    With the temperature tau = 1 p is the posterior itself. Above 1 most of the mass would go to the many tokens that
    the teacher holds for impossible. So with K the 8 best tokens of the teacher in a frame, for teacher and student

        p_tau = softmax([y_k, k in K; log sum_{k not in K} exp(y_k)] / tau),    y the log-posteriors.

    Several teachers are one: y^T = log mean_m exp(y^m). With frames "near" only those count where the teacher's blank
    is below 0.99, or whose neighbour's best token is not the blank; the mean stays one over all frames.

    Hinton et al., "Distilling the knowledge in a neural network", 2015; for acoustic models Li et al., "Learning
    small-size DNN with output-distribution-based criteria", Interspeech 2014.
    """

    name = "distillation"
    Options = DistillationOptions

    def soft(self, wanted: list[Tensor], log_probs: Tensor, lengths: Tensor, targets: Tensor,
             target_lengths: Tensor) -> Tensor:
        teacher, tau = torch.stack(wanted).logsumexp(0) - math.log(len(wanted)), self.options.temperature
        counted = valid_frames(log_probs, lengths)
        if self.options.frames == "near":
            counted = counted & near(teacher, counted)
        if tau > 1:
            best = teacher.topk(min(BEST, teacher.shape[2])).indices
            teacher, log_probs = (softened(one, best, tau) for one in (teacher, log_probs))
        return tau**2 * frame_divergence(teacher, log_probs).masked_fill(~counted, 0.0).sum(1)


def softened(log_probs: Tensor, best: Tensor, temperature: float) -> Tensor:
    """Log-posteriors (N, T, V) at a temperature, the tokens outside `best` (N, T, K) as one class: (N, T, K [+ 1])."""
    classes = log_probs.gather(2, best)
    if best.shape[2] < log_probs.shape[2]:
        rest = log_probs.scatter(2, best, -torch.inf).logsumexp(2, keepdim=True)
        classes = torch.cat((classes, rest), 2)
    return (classes / temperature).log_softmax(2)


def near(teacher: Tensor, valid: Tensor) -> Tensor:
    """Mask (N, T): frames of log-posteriors (N, T, V) with a blank below 0.99, or beside one whose best is no blank."""
    spikes = ((teacher.argmax(2) != 0) & valid).float()
    beside = functional.max_pool1d(spikes[:, None], 3, 1, 1)[:, 0] > 0
    return beside | (teacher[..., 0] < math.log(SURE))
