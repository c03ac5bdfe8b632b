"""Path KL: a student follows the distribution of a teacher over the paths of the LF-MMI lattice."""

from torch import Tensor

from asrcompress.training.criteria._sequences import LatticeTeaching, divergence
from asrcompress.training.criteria.lfmmi import denominator


class PathKL(LatticeTeaching):
    """KL(teacher || student) over the paths of the lattice, the mean per frame: never negative, zero where they agree.

    The language model weighs what the paths say, so errors count where a phone sequence is likely; and the student
    follows the alignment of its teacher, for KL(paths) = KL(labels) + E[KL(alignments | labels)]. The gradient is that
    of LF-MMI with the teacher's occupancies in place of the reference's. Several teachers count equally. The
    formula is that of `_sequences.divergence`. Wong and Gales, "Sequence student-teacher training of deep neural
    networks", Interspeech 2016.
    """

    name = "path_kl"

    def soft(self, wanted: list[Tensor], log_probs: Tensor, lengths: Tensor, targets: Tensor,
             target_lengths: Tensor) -> Tensor:
        scores = self.options.student_scale * log_probs
        teachers = [self.options.teacher_scale * teacher for teacher in wanted]
        return divergence(teachers, scores, self.log_z(scores, lengths), lambda own: denominator(own, lengths, self.lm))
