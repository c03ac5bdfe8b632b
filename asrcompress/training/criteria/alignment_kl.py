"""Alignment KL: given the reference, a student follows a teacher in where its tokens lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from asrcompress.options import require
from asrcompress.training.criteria._sequences import SequenceOptions
from asrcompress.training.criteria._teaching import Teaching
from asrcompress.training.criteria.ctc import ctc_score


@dataclass(frozen=True)
class AlignmentKLOptions(SequenceOptions):
    """For how long the teacher counts; the hard criterion always does."""

    hard: Literal["none", "ctc", "lfmmi"] = "ctc"
    weight: float = 0.2
    until: float = 0.5  # share of the training after which there is the hard criterion alone

    def __post_init__(self) -> None:
        require(self.hard != "none", "criterion alignment_kl: alone it does not teach what is spoken; give hard=ctc or "
                "hard=lfmmi")
        super().__post_init__()
        require(0 < self.until <= 1, f"criterion alignment_kl: until is {self.until:g}; it is above 0, at most 1")


class AlignmentKL(Teaching):
    """KL(teacher || student) over the CTC alignments of the reference, beside a hard criterion; the mean per frame.

    Models that share their spikes can be averaged frame by frame, and the student may then follow one frame by frame.
    It is a soft form of guided CTC: Kurata and Audhkhasi, "Guiding CTC posterior spike timings for improved posterior
    fusion and knowledge distillation", Interspeech 2019. Any tokens; several teachers count equally.
    """

    name = "alignment_kl"
    Options = AlignmentKLOptions

    def forward(self, log_probs: Tensor, lengths: Tensor, *batch: Any) -> dict[str, Tensor]:
        if self.progress < self.options.until:
            return super().forward(log_probs, lengths, *batch)
        assert self.hard is not None  # AlignmentKLOptions
        return self.hard(log_probs, lengths, *batch[2:4])

    def soft(self, wanted: list[Tensor], log_probs: Tensor, lengths: Tensor, targets: Tensor,
             target_lengths: Tensor) -> Tensor:
        teachers = [self.options.teacher_scale * teacher for teacher in wanted]
        return divergence(teachers, self.options.student_scale * log_probs, lengths, targets, target_lengths)


def divergence(teachers: Sequence[Tensor], scores: Tensor, lengths: Tensor, targets: Tensor,
               target_lengths: Tensor) -> Tensor:
    """KL(teacher || student) (N,) in nats over the alignments of the reference, the mean over the teachers.

    With q(path) = exp(sum_t s^T_t(path_t)) / Z_T over the CTC alignments of the reference, p likewise with s^S, and G
    the occupancies of q

        KL(q || p) = sum_tk G_t(k) (s^T_t(k) - s^S_t(k)) - log Z_T + log Z_S.

    teachers: s^T, log-posteriors x acoustic scale (N, T, V), finite; scores: s^S, the student's; lengths (N,);
    targets (N, U); target_lengths (N,). 0 for a reference that cannot be aligned.
    """
    batch = (lengths, targets, target_lengths)
    total = ctc_score(scores, *batch).double()
    for teacher in teachers:
        with torch.enable_grad():
            own = teacher.detach().requires_grad_()
            log_z = ctc_score(own, *batch)
            (occupancy,) = torch.autograd.grad(log_z.sum(), own)
        difference = (occupancy * (teacher - scores)).sum((1, 2), dtype=torch.float64)
        total = total + (difference - log_z.detach()) / len(teachers)
    return total
