"""Distillation: a student follows the posteriors of a teacher, frame by frame, and needs no transcripts for it."""

from torch import Tensor

from asrcompress.compression.distil import frame_divergence
from asrcompress.training.criteria._teaching import Teaching, TeachingOptions
from asrcompress.training.criteria.ctc import valid_frames


class Distillation(Teaching):
    """KL(teacher || student), the mean per frame: never negative, zero where they agree.

    Hinton et al., "Distilling the knowledge in a neural network", 2015; for acoustic models Li et al., "Learning
    small-size DNN with output-distribution-based criteria", Interspeech 2014.
    """

    name = "distillation"
    Options = TeachingOptions

    def soft(self, wanted: list[Tensor], log_probs: Tensor, lengths: Tensor, targets: Tensor,
             target_lengths: Tensor) -> Tensor:
        return frame_divergence(wanted[0], log_probs).masked_fill(~valid_frames(log_probs, lengths), 0.0).sum(1)
