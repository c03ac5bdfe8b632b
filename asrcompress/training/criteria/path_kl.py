"""Path KL: a student follows the distribution of a teacher over the paths of the LF-MMI lattice."""

from collections.abc import Sequence

import torch
from torch import Tensor

from asrcompress.training.criteria._sequences import LatticeTeaching
from asrcompress.training.criteria.lfmmi import denominator


class PathKL(LatticeTeaching):
    """KL(teacher || student) over the paths of the lattice, the mean per frame: never negative, zero where they agree.

    The language model weighs what the paths say, so errors count where a phone sequence is likely; and the student
    follows the alignment of its teacher, for KL(paths) = KL(labels) + E[KL(alignments | labels)]. The gradient is that
    of LF-MMI with the teacher's occupancies in place of the reference's. Several teachers count equally. Wong and
    Gales, "Sequence student-teacher training of deep neural networks", Interspeech 2016.
    """

    name = "path_kl"

    def soft(self, wanted: list[Tensor], log_probs: Tensor, lengths: Tensor, targets: Tensor,
             target_lengths: Tensor) -> Tensor:
        scores = self.options.student_scale * log_probs
        teachers = [self.options.teacher_scale * teacher for teacher in wanted]
        return divergence(teachers, scores, self.log_z(scores, lengths), lengths, self.lm)


def divergence(teachers: Sequence[Tensor], scores: Tensor, log_z: Tensor, lengths: Tensor, lm: Tensor) -> Tensor:
    """KL(teacher || student) (N,) in nats over the paths of the lattice, the mean over the teachers.

    With q(path) = P_LM x exp(sum_t s^T_t(path_t)) / Z_T, p likewise with s^S, and G the occupancies of q

        KL(q || p) = sum_tk G_t(k) (s^T_t(k) - s^S_t(k)) - log Z_T + log Z_S.

    teachers: s^T, log-posteriors x acoustic scale (N, T, V), finite; scores: s^S, the student's; log_z: log Z_S (N,),
    differentiable in them; lengths (N,) in frames; lm (V, V, V).
    """
    total = log_z
    for teacher in teachers:
        log_z_teacher, occupancy = denominator(teacher, lengths, lm)
        difference = (occupancy * (teacher - scores)).sum((1, 2), dtype=torch.float64)
        total = total + (difference - log_z_teacher) / len(teachers)
    return total
