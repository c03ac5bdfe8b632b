"""Hidden layers of a student follow those of its teacher, through linear maps that no model file holds."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from asrcompress.compression.calibration import in_eval_mode
from asrcompress.errors import UserError
from asrcompress.models.base import AcousticModel


@contextmanager
def outputs(model: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """What the modules at some paths give during the block; the last, of a module that is called more than once."""
    found: dict[str, Tensor] = {}
    handles = [model.get_submodule(path).register_forward_hook(lambda *call, path=path: found.update({path: call[-1]}))
               for path in paths]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


class HiddenLayers(nn.Module):
    """Mean over pairs and frames of |LN(P h^S) - LN(h^T)|^2 / dim, with LN a LayerNorm without scale and P trained.

    P starts as the identity, cut to the shape where student and teacher differ in their dimension. Errors: UserError
    for a path that is no module, and for one whose output has not the frame rate of the model's output.
    Romero et al., "FitNets: hints for thin deep nets", ICLR 2015.
    """

    def __init__(self, teacher: AcousticModel, student: AcousticModel, pairs: Sequence[Sequence[str]]) -> None:
        super().__init__()
        self.pairs = pairs
        self.axes = [(channel_axis(teacher, one, "teacher"), channel_axis(student, two, "student"))
                     for one, two in pairs]
        self.maps = nn.ModuleList(nn.Linear(student[1], teacher[1]) for teacher, student in self.axes)
        for linear in self.maps:
            nn.init.eye_(linear.weight)  # type: ignore[arg-type]
            nn.init.zeros_(linear.bias)  # type: ignore[arg-type]

    def forward(self, teacher: Mapping[str, Tensor], student: Mapping[str, Tensor], valid: Tensor) -> Tensor:
        """The loss of a batch: the outputs of the modules by path, and the mask (N, T') of the frames that count."""
        losses = []
        for (one, two), (of_teacher, of_student), linear in zip(self.pairs, self.axes, self.maps, strict=True):
            if two in student:
                wanted = teacher[one].float().movedim(of_teacher[0], 2)
                apart = normalized(linear(student[two].float().movedim(of_student[0], 2))) - normalized(wanted)
                frames = apart.square().mean(2)[:, :valid.shape[1]].masked_fill(~valid, 0.0)
                losses.append(frames.sum() / valid.sum().clamp(min=1))
            else:  # a block that stochastic depth left out of this step; several processes need every gradient
                losses.append(0.0 * (linear.weight.sum() + linear.bias.sum()))
        return torch.stack(losses).mean()


def normalized(x: Tensor) -> Tensor:
    """Mean 0 and variance 1 over the last axis."""
    return functional.layer_norm(x, x.shape[-1:])


@torch.no_grad()
def channel_axis(model: AcousticModel, path: str, whose: str) -> tuple[int, int]:
    """(axis of the channels, channels) of a module's output (N, T', C) or (N, C, T'), found by running the model.

    Errors: UserError where there is no such module, or its output has not the frames of the model's.
    """
    try:
        model.get_submodule(path)
    except AttributeError:
        raise UserError(f"criterion.hidden: the {whose} has no module '{path}'; it has "
                        f"{', '.join(name for name, _ in model.named_children())} and what is in those") from None
    frames_at = {1, 2}
    for frames in (40 * model.subsampling, 56 * model.subsampling):  # two, so that no dimension is taken for the frames
        x = torch.zeros(1, frames, model.config["features"], device=next(model.parameters()).device)
        with in_eval_mode(model), outputs(model, [path]) as found:
            length = model(x, torch.tensor([frames], device=x.device))[0].shape[1]
        shape = tuple(found[path].shape) if isinstance(found.get(path), Tensor) else ()
        frames_at &= {axis for axis in (1, 2) if len(shape) == 3 and shape[axis] == length}
    if len(frames_at) != 1:
        raise UserError(f"criterion.hidden: '{path}' of the {whose} gives {shape or 'no tensor'} for {length} frames "
                        "of output; name a module that gives one vector for each of those frames")
    axis = 3 - frames_at.pop()
    return axis, shape[axis]
