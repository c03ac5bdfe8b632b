"""Alignment KL: given the reference, a student follows a teacher in where its tokens lie."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from asrcompress.options import require
from asrcompress.training.criteria._sequences import SequenceOptions, divergence
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
        require(not self.hidden, "criterion alignment_kl: hidden layers need a teacher that is heard to the end, and "
                "here it is not after `until`; leave hidden away")
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
        batch = (lengths, targets, target_lengths)
        scores = self.options.student_scale * log_probs
        teachers = [self.options.teacher_scale * teacher for teacher in wanted]
        return divergence(teachers, scores, ctc_score(scores, *batch), lambda own: numerator(own, *batch))


def numerator(scores: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor) -> tuple[Tensor, Tensor]:
    """`ctc_score` (N,) of scores (N, T, V) and its gradient, the occupancies (N, T, V); 0 without a path."""
    with torch.enable_grad():
        own = scores.detach().requires_grad_()
        log_z = ctc_score(own, lengths, targets, target_lengths)
        return log_z.detach(), torch.autograd.grad(log_z.sum(), own)[0]
