"""What every training criterion is."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from asrcompress.models.base import AcousticModel
from asrcompress.training.options import AugmentationOptions


class Criterion(nn.Module):
    """criterion(log_probs, lengths, ...) -> a dict of scalars.

    log_probs (N, T, V) are a log-softmax with the blank at 0, lengths (N,) are frames. What a batch has to give after
    those is named by `inputs`: targets (N, U), padded, with target_lens (N,), the features x with x_lens, the same
    before augmentation (clean), the ids of the cuts, or `heard`, what the modules of `listens` gave. The dict has
    `loss`, the mean per frame over the utterances that count; `frames`, how many those are; `unaligned`, the utterances
    with fewer frames than their target needs, which do not count; and parts of the loss, for the log.

    A criterion is one file of this folder: a subclass whose `name` is the file's and whose `Options` are its dataclass.
    """

    name: ClassVar[str] = ""
    Options: ClassVar[type]
    inputs: tuple[str, ...] = ("targets", "target_lens")
    listens: tuple[str, ...] = ()  # modules of the student, by path, whose outputs in a training step `heard` has
    views: int = 1  # augmented versions of each utterance in a training batch, one after the other
    progress: float = 0.0  # share of the training that is done, which the training sets before each step

    @classmethod
    def build(cls, options: Any, vocab: int, targets: Iterable[Sequence[int]]) -> "Criterion":
        """The criterion for `vocab` tokens; `targets` are the token sequences of the training transcripts."""
        raise NotImplementedError

    def begin(self, model: AcousticModel) -> None:
        """Prepare for the student, once, before the optimizer is made: parameters of a criterion are trained too."""

    def augmentation(self, options: AugmentationOptions | None) -> AugmentationOptions | None:
        """The augmentation of the training, or the one that this criterion needs instead."""
        return options

    def __call__(self, log_probs: Tensor, lengths: Tensor, *more: Any) -> dict[str, Tensor]:
        return super().__call__(log_probs, lengths, *more)
