"""Distillation: a student follows the posteriors of a teacher, frame by frame, and needs no transcripts for it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asrcompress import compression, precision
from asrcompress.compression.distil import divergence
from asrcompress.errors import UserError
from asrcompress.options import require
from asrcompress.training.criteria.base import Criterion


@dataclass(frozen=True)
class DistillationOptions:
    """Whom to follow."""

    teacher: str | None = None  # the file of a model, or packed file

    def __post_init__(self) -> None:
        require(self.teacher is None or self.teacher != "", "criterion distillation: the name of the teacher is empty")


class Distillation(Criterion):
    """KL(teacher || student), the mean per frame: never negative, zero where they agree.

    teacher: a model; it hears exactly what the student hears, augmentation included, in the precision `auto`. It is no
    part of the state, so checkpoints stay as small as the student. Errors: UserError for a teacher of other tokens.
    Hinton et al., "Distilling the knowledge in a neural network", 2015; for acoustic models Li et al., "Learning
    small-size DNN with output-distribution-based criteria", Interspeech 2014.
    """

    name = "distillation"
    Options = DistillationOptions
    inputs = ("x", "x_lens")

    def __init__(self, teacher: nn.Module, vocab: int) -> None:
        super().__init__()
        tokens = teacher.config["vocab"]  # type: ignore[index]
        if tokens != vocab:
            raise UserError(f"the teacher has {tokens} tokens and the lang folder {vocab}; "
                            "distil from a model of the same lang")
        self.hidden = [teacher.eval().requires_grad_(False)]

    @classmethod
    def build(cls, options: DistillationOptions, vocab: int, targets: Iterable[Sequence[int]]) -> "Distillation":
        """Distillation from the model of a file. Errors: UserError where none is given, or it is no model."""
        if options.teacher is None:
            raise UserError("distillation needs a teacher; give criterion.teacher=FILE, a model or packed file")
        return cls(compression.load(options.teacher), vocab)

    def forward(self, log_probs: Tensor, lengths: Tensor, x: Tensor, x_lens: Tensor) -> dict[str, Tensor]:
        """loss, frames, unaligned; for log_probs (N, T, V), lengths (N,) and the features x (N, T', F), x_lens (N,)."""
        teacher = self.hidden[0] = self.hidden[0].to(x.device)
        with torch.no_grad(), precision.autocast(x.device.type):
            wanted = teacher(x, x_lens)[0].float()
        with torch.autocast(x.device.type, enabled=False):
            loss = divergence(wanted, log_probs.float(), lengths.to(x.device))
        return {"loss": loss, "frames": lengths.sum(), "unaligned": torch.tensor(0)}
