"""CTC, with an optional label prior against peaky posteriors."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from asrcompress.options import require
from asrcompress.training.criteria.base import Criterion


def valid_frames(scores: Tensor, lengths: Tensor) -> Tensor:
    """Mask (N, T): True where frame t belongs to utterance n, for scores (N, T, V) and lengths (N,)."""
    return torch.arange(scores.shape[1], device=scores.device) < lengths.to(scores.device)[:, None]


def alignable(lengths: Tensor, targets: Tensor, target_lengths: Tensor) -> Tensor:
    """Mask (N,): True where the utterance has the frames that its target needs, one a label and one between repeats."""
    position = torch.arange(1, max(targets.shape[1], 1), device=targets.device)
    repeats = (targets[:, 1:] == targets[:, :-1]) & (position < target_lengths.to(targets.device)[:, None])
    needed = target_lengths.to(targets.device) + repeats.sum(1)
    return (lengths.to(targets.device) >= needed.clamp(min=1)).to(targets.device)


def ctc_score(scores: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor) -> Tensor:
    """Log of the summed scores of all CTC alignments of each target; 0 for a target that cannot be aligned.

    scores: (N, T, V) log domain, normalized or not, blank is 0; lengths (N,); targets (N, U); target_lengths (N,).
    Returns (N,). Graves et al., "Connectionist temporal classification", ICML 2006.
    """
    if not scores.shape[1]:  # torch refuses a batch without a frame
        return scores.sum((1, 2))
    # torch's gradient is right only for normalized input: each frame's normalizer is taken out, and added back outside.
    normalizer = scores.logsumexp(-1)
    log_probs = (scores - normalizer[..., None]).transpose(0, 1)
    loss = functional.ctc_loss(log_probs, targets, lengths, target_lengths, reduction="none", zero_infinity=True)
    total = normalizer.masked_fill(~valid_frames(scores, lengths), 0.0).sum(1)
    return torch.where(alignable(lengths, targets, target_lengths).to(scores.device), total - loss, 0.0)


def mean_per_frame(losses: Tensor, lengths: Tensor, counted: Tensor) -> dict[str, Tensor]:
    """Loss per frame, over the utterances that are `counted` (N,) bool; `losses` (N,) must be finite everywhere."""
    counted = counted.to(losses.device)
    frames = (lengths.to(losses.device) * counted).sum()
    loss = torch.where(counted, losses, 0.0).sum() / frames.clamp(min=1)
    return {"loss": loss, "frames": frames, "unaligned": (~counted).sum()}


@dataclass(frozen=True)
class CTCOptions:
    """The label prior; 0 for none."""

    prior_scale: float = 0.0
    prior_decay: float = 0.99  # share of the running prior that a step keeps

    def __post_init__(self) -> None:
        require(self.prior_scale >= 0 and 0 <= self.prior_decay <= 1, "criterion ctc: prior_scale is at least 0 and "
                f"prior_decay from 0 to 1, not {self.prior_scale:g} and {self.prior_decay:g}")


class CTC(Criterion):
    """CTC loss, the mean per frame.

    With `prior_scale` > 0 each frame's log posteriors lose prior_scale * log prior before the alignments are summed;
    the prior is a running mean of the network's own posteriors (share `prior_decay` kept at a step), so that
    alignments use the blank less. They are not renormalized after that: the network would learn the prior back, and
    be the peakier for it. The loss then has another zero, and may be negative. Huang et al., "Less peaky and more
    accurate CTC forced alignment by label priors", ICASSP 2024.
    """

    name = "ctc"
    Options = CTCOptions
    prior: Tensor

    def __init__(self, vocab: int, options: CTCOptions = CTCOptions()) -> None:
        super().__init__()
        self.prior_scale, self.prior_decay = options.prior_scale, options.prior_decay
        self.register_buffer("prior", torch.full((vocab,), 1.0 / vocab))

    @classmethod
    def build(cls, options: CTCOptions, vocab: int, targets: Iterable[Sequence[int]]) -> "CTC":
        """CTC for `vocab` tokens."""
        return cls(vocab, options)

    def forward(self, log_probs: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor) -> dict[str, Tensor]:
        """loss, frames, unaligned; for log_probs (N, T, V), lengths (N,), targets (N, U), target_lengths (N,)."""
        valid = valid_frames(log_probs, lengths)
        scores = log_probs.masked_fill(~valid[..., None], 0.0)
        if self.prior_scale:
            if self.training:
                self.update_prior(scores.detach()[valid])
            scores = scores - self.prior_scale * self.prior.clamp(min=1e-8).log().to(scores.dtype)
        losses = -ctc_score(scores, lengths, targets, target_lengths)
        return mean_per_frame(losses, lengths, alignable(lengths, targets, target_lengths))

    def update_prior(self, log_probs: Tensor) -> None:
        """Move the prior towards the mean posterior of these frames (frames, V)."""
        if len(log_probs):
            self.prior.lerp_(log_probs.exp().mean(0).to(self.prior.dtype), 1.0 - self.prior_decay)
