"""Label KL: a student follows the distribution of a teacher over label sequences, whatever their alignments."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from asrcompress.options import require
from asrcompress.training.criteria import _lattice_samples, _phone_lm
from asrcompress.training.criteria._sequences import LatticeTeaching, SequenceOptions
from asrcompress.training.criteria.ctc import ctc_score


@dataclass(frozen=True)
class LabelKLOptions(SequenceOptions):
    """How many label sequences are drawn of each utterance; teachers take turns."""

    hard: Literal["none", "ctc", "lfmmi"] = "lfmmi"
    weight: float = 0.5
    samples: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        teachers = max(1, len(self.files))
        require(self.samples > 0 and self.samples % teachers == 0, f"criterion label_kl: samples is {self.samples}; it "
                f"is a multiple of the number of teachers, {teachers}, so that they count equally")


class LabelKL(LatticeTeaching):
    """LF-MMI whose references are label sequences drawn from the teachers' lattices; the mean per frame.

    Its mean is KL(teacher || student) over label sequences plus a constant, the teacher's entropy; its gradient is
    unbiased. Where the teacher spikes does not matter, so teachers of other architectures may differ in that. Each step
    draws anew, in validation always the same.
    """

    name = "label_kl"
    Options = LabelKLOptions

    def soft(self, wanted: list[Tensor], log_probs: Tensor, lengths: Tensor, targets: Tensor,
             target_lengths: Tensor) -> Tensor:
        generator = None if self.training else torch.Generator().manual_seed(0)
        samples = self.options.samples // len(wanted)
        scores = self.options.student_scale * log_probs
        log_z = self.log_z(scores, lengths)
        each = [log_z - sampled_score(*_lattice_samples.draw(self.options.teacher_scale * teacher, lengths, self.lm,
                                                              samples, generator), scores, lengths, self.lm)
                for teacher in wanted]
        return torch.stack(each).mean(0).to(log_probs.dtype)


def sampled_score(labels: Tensor, counts: Tensor, scores: Tensor, lengths: Tensor, lm: Tensor) -> Tensor:
    """The mean (N,) of log(P_LM x summed exp(scores) of the alignments) of labels (N, K, U) of counts (N, K).

    scores: (N, T, V), of `lengths` (N,) frames each. Less log Z it is the student's log probability of the labels.
    """
    samples = counts.shape[1]
    each = (lengths.repeat_interleave(samples), labels.flatten(0, 1), counts.flatten())
    score = ctc_score(scores.repeat_interleave(samples, 0), *each).double() + _phone_lm.score(lm, *each[1:]).double()
    return score.view(counts.shape).mean(1)
