"""What the criteria share that compare a teacher and a student by whole sequences, not frame by frame."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from asrcompress.options import require
from asrcompress.training.criteria import _phone_lm
from asrcompress.training.criteria._teaching import Teaching, TeachingOptions
from asrcompress.training.criteria.lfmmi import LFMMI, LogZ


@dataclass(frozen=True)
class SequenceOptions(TeachingOptions):
    """How much the log-posteriors count against the language model: factors of both sides."""

    teacher_scale: float = 1.0
    student_scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.teacher_scale > 0 and self.student_scale > 0, f"criterion: teacher_scale {self.teacher_scale:g} "
                f"and student_scale {self.student_scale:g} are above 0")


class LatticeTeaching(Teaching):
    """Teaching over the dense lattice of `lfmmi`, with the phone LM of the training transcripts as `lm` (V, V, V).

    Errors: UserError for more than 128 tokens, and without transcripts.
    """

    Options: ClassVar[type] = SequenceOptions
    lm: Tensor

    def __init__(self, teachers: Mapping[str, nn.Module], vocab: int, options: Any = None,
                 targets: Iterable[Sequence[int]] = ()) -> None:
        if isinstance(targets, Iterator):  # which could be gone through once only, and a hard LF-MMI does so as well
            targets = list(targets)
        super().__init__(teachers, vocab, options, targets)
        self.register_buffer("lm", _phone_lm.estimate(targets, vocab), persistent=False)

    def log_z(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """log Z (N,) of the student's scores (N, T, V); a hard LF-MMI of the same scale need not compute it again."""
        log_z: Tensor = LogZ.apply(scores, lengths, self.lm)
        if isinstance(self.hard, LFMMI) and self.hard.acoustic_scale == self.options.student_scale:
            self.hard.known_log_z = log_z
        return log_z


def divergence(teachers: Sequence[Tensor], scores: Tensor, log_z: Tensor,
               summed: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
    """KL(teacher || student) (N,) in nats between the distributions over a set of paths, the mean over the teachers.

    With q(path) = w(path) exp(sum_t s^T_t(path_t)) / Z_T, p the same of s^S, and G the occupancies of q

        KL(q || p) = sum_tk G_t(k) (s^T_t(k) - s^S_t(k)) - log Z_T + log Z_S.

    teachers: s^T (N, T, V), finite; scores: s^S, the student's; log_z: log Z_S (N,), differentiable in them; summed:
    log Z (N,) and the occupancies (N, T, V), zero past the end, of scores.
    """
    total = log_z.double()
    for teacher in teachers:
        log_z_teacher, occupancy = summed(teacher)
        difference = (occupancy * (teacher - scores)).sum((1, 2), dtype=torch.float64)
        total = total + (difference - log_z_teacher) / len(teachers)
    return total.to(scores.dtype)
