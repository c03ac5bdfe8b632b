"""CR-CTC: two augmented views of an utterance, and a student that is to say the same of both."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from asrcompress.compression.distil import frame_divergence
from asrcompress.options import require
from asrcompress.training import criteria
from asrcompress.training.criteria.base import Criterion
from asrcompress.training.criteria.ctc import mean_per_frame, valid_frames
from asrcompress.training.options import AugmentationOptions


@dataclass(frozen=True)
class ConsistencyOptions:
    """How much the agreement of the views counts."""

    hard: Literal["ctc", "lfmmi"] = "ctc"  # the criterion on the transcripts
    weight: float = 0.2  # of the agreement
    warmup: float = 0.1  # share of the training in which the weight rises
    time_masks: float = 2.5  # times as many as the training asks for

    def __post_init__(self) -> None:
        require(self.weight >= 0 and 0 <= self.warmup < 1 and self.time_masks > 0, "criterion consistency: weight is "
                "at least 0, warmup from 0 to below 1 and time_masks above 0, not "
                f"{self.weight:g}, {self.warmup:g} and {self.time_masks:g}")


class Consistency(Criterion):
    """1/2 (hard(y1) + hard(y2)) + weight 1/2 (KL(y2 || y1) + KL(y1 || y2)), the mean per frame.

    y1 and y2 are the log-posteriors of two views of the same utterances, the halves of a batch; the left side of each
    KL gets no gradient. Held-out utterances have one view, and the hard criterion alone. A batch of two views holds
    half as many utterances, so its step costs as much as any other, and an epoch has twice as many steps.
    Yao et al., "CR-CTC: consistency regularization on CTC for improved speech recognition", ICLR 2025.
    """

    name = "consistency"
    Options = ConsistencyOptions
    views = 2

    def __init__(self, hard: Criterion, options: ConsistencyOptions = ConsistencyOptions()) -> None:
        super().__init__()
        self.hard, self.options = hard, options

    @classmethod
    def build(cls, options: ConsistencyOptions, vocab: int, targets: Iterable[Sequence[int]]) -> "Consistency":
        """Consistency beside CTC or LF-MMI."""
        return cls(criteria.build(options.hard, vocab, targets), options)

    def augmentation(self, options: AugmentationOptions | None) -> AugmentationOptions | None:
        if options is None:
            return None
        masks, times = options.spec_augment, self.options.time_masks
        more = replace(masks, time_masks_per_second=times * masks.time_masks_per_second,
                       time_fraction=min(1.0, times * masks.time_fraction))
        return replace(options, spec_augment=more)

    def forward(self, log_probs: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor) -> dict[str, Tensor]:
        """loss, its parts hard and consistency, frames, unaligned; in training each half of the batch is a view."""
        hard = self.hard(log_probs, lengths, targets, target_lengths)
        if not self.training:
            return hard
        other = log_probs.detach().roll(len(log_probs) // 2, 0)
        losses = frame_divergence(other, log_probs).masked_fill(~valid_frames(log_probs, lengths), 0.0).sum(1)
        apart = mean_per_frame(losses, lengths, lengths > 0)["loss"]
        warmup = self.options.warmup
        weight = self.options.weight * (min(1.0, self.progress / warmup) if warmup else 1.0)
        return hard | {"loss": hard["loss"] + weight * apart, "hard": hard["loss"].detach(),
                       "consistency": apart.detach()}
