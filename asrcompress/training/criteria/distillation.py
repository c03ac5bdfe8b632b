"""Distillation: a student follows the posteriors of a teacher, frame by frame, and needs no transcripts for it."""

from pathlib import Path

import torch
from torch import Tensor, nn

from asrcompress import compression, precision
from asrcompress.compression.distil import divergence
from asrcompress.errors import UserError


class Distillation(nn.Module):
    """KL(teacher || student), the mean per frame: never negative, zero where they agree.

    teacher: a model, or the file of one; it hears exactly what the student hears, augmentation included. It is no part
    of the state, so checkpoints stay as small as the student. UserError for a teacher of another token set.
    Hinton et al., "Distilling the knowledge in a neural network", 2015; for acoustic models Li et al., "Learning
    small-size DNN with output-distribution-based criteria", Interspeech 2014.
    """

    inputs = ("x", "x_lens")

    def __init__(self, teacher: nn.Module | Path | str, vocab: int) -> None:
        super().__init__()
        model = teacher if isinstance(teacher, nn.Module) else compression.load(teacher)
        if model.config["vocab"] != vocab:  # type: ignore[index]
            raise UserError(f"the teacher has {model.config['vocab']} tokens and the lang folder {vocab}; "  # type: ignore[index]
                            "distil from a model of the same lang")
        self.hidden = [model.eval().requires_grad_(False)]

    def forward(self, log_probs: Tensor, lengths: Tensor, x: Tensor, x_lens: Tensor) -> dict[str, Tensor]:
        """loss, frames, unaligned; for log_probs (N, T, V), lengths (N,) and the features x (N, T', F), x_lens (N,)."""
        teacher = self.hidden[0] = self.hidden[0].to(x.device)
        with torch.no_grad(), precision.autocast(x.device.type):
            wanted = teacher(x, x_lens)[0].float()
        with torch.autocast(x.device.type, enabled=False):
            loss = divergence(wanted, log_probs.float(), lengths.to(x.device))
        return {"loss": loss, "frames": lengths.sum(), "unaligned": torch.tensor(0)}
