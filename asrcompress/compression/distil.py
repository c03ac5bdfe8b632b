"""distil: a compressed model is trained to say what the model said that it was made of. No transcripts are needed."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from asrcompress import precision
from asrcompress.compression import quantization
from asrcompress.compression.parametrization import copy_model
from asrcompress.compression.rate import RateControl
from asrcompress.errors import UserError


def frame_divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(teacher || student) of log-posteriors (..., vocab), in nats."""
    return (teacher.exp() * (teacher - student)).sum(-1)


def divergence(teacher: Tensor, student: Tensor, lens: Tensor) -> Tensor:
    """KL(teacher || student) of log-posteriors (N, T, vocab), per frame inside the utterances, in nats."""
    inside = torch.arange(teacher.shape[1], device=lens.device) < lens[:, None]
    return (frame_divergence(teacher, student) * inside).sum() / inside.sum().clamp(min=1)


Loss = Callable[[Any, int], Tensor]  # of a student, on the batch of this number


def of_posteriors(teacher: Any, batches: Sequence[tuple[Tensor, Tensor]]) -> Loss:
    """`divergence` of models (x, x_lens) -> (log-posteriors, lengths), whose teacher is asked once."""
    with torch.no_grad():
        wanted = [teacher(*batch)[0] for batch in batches]

    def loss(student: Any, number: int) -> Tensor:
        log_probs, lens = student(*batches[number])
        return divergence(wanted[number], log_probs.float(), lens)

    return loss


@torch.enable_grad()
def distil(student: Any, teacher: Any, batches: Sequence[Any], steps: int, lr: float = 1e-4,
           loss: Loss | None = None,
           track: Callable[[Sequence[int], str], Iterable[int]] = lambda steps, text: steps) -> Any:
    """A copy of the student after `steps` steps of Adam down a loss (default: `of_posteriors`), a batch each in turn.

    Both are in eval mode: BatchNorms keep their statistics, dropout is off. Quantizers take part (`advance`), and
    inputs that are rounded (`activations`) too; quantizers that have a rate are held to it (`RateControl`). The
    learning rate falls as a cosine. `track` shows how far it is, as `rich.progress.track`.

    Errors: UserError where there is no batch, every parameter is frozen, or the divergence is not finite.
    """
    if not batches:
        raise UserError("distillation needs batches to train on, and there is none; calibrate on data, or data-free")
    student = copy_model(student).eval()
    teacher.eval()
    of_batch = loss or of_posteriors(teacher, batches)
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    if not trained:
        raise UserError("distillation: every parameter of the student is frozen; let some require gradients, or leave "
                        "distillation out")
    adam = torch.optim.Adam(trained, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, max(1, steps))
    control = RateControl()
    written, device = quantization.attached(student).values(), trained[0].device.type
    for step in track(range(steps), "distillation"):
        for one in written:
            one.advance((step + 1) / steps)
        adam.zero_grad()
        with precision.autocast(device):
            found = of_batch(student, step % len(batches))
        if not torch.isfinite(found):
            raise UserError(f"distillation: the loss is {found.item()} at step {step}; use a lower learning rate")
        penalty = control.penalty(student, step / steps)
        (found if penalty is None else found + penalty).backward()
        adam.step()
        schedule.step()
    return student
