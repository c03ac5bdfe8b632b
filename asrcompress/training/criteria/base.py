"""What every training criterion is."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn


class Criterion(nn.Module):
    """criterion(log_probs, lengths, ...) -> a dict of scalars.

    log_probs (N, T, V) are a log-softmax with the blank at 0, lengths (N,) are frames. What a batch has to give after
    those is named by `inputs`: targets (N, U), padded, with target_lens (N,), the features x with x_lens, the same
    before augmentation (clean), or the ids of the cuts. The dict has `loss`, the mean per frame over the utterances
    that count; `frames`, how many those are; `unaligned`, the utterances with fewer frames than their target needs,
    which do not count. `progress` is the share of the training that is done; the training step sets it.

    A criterion is one file of this folder: a subclass whose `name` is the file's and whose `Options` are its dataclass.
    """

    name: ClassVar[str] = ""
    Options: ClassVar[type]
    inputs: tuple[str, ...] = ("targets", "target_lens")
    progress: float = 0.0

    @classmethod
    def build(cls, options: Any, vocab: int, targets: Iterable[Sequence[int]]) -> "Criterion":
        """The criterion for `vocab` tokens; `targets` are the token sequences of the training transcripts."""
        raise NotImplementedError

    def __call__(self, log_probs: Tensor, lengths: Tensor, *more: Any) -> dict[str, Tensor]:
        return super().__call__(log_probs, lengths, *more)
