"""A matrix whose inputs are frames side by side, such as spliced ones, as a kernel with a tap for each frame."""

from collections.abc import Sequence

from torch import Tensor

from asrcompress.compression.structures.base import exact
from asrcompress.errors import UserError


def kernel_shape(shape: Sequence[int], context_frames: int = 1) -> tuple[int, int, int]:
    """(out, in, taps) of a kernel, (out, in / context_frames, context_frames) of a matrix.

    Errors: UserError unless the context frames divide the inputs.
    """
    out, inputs, taps = (*shape, 1)[:3]
    if context_frames < 1 or (len(shape) == 2 and inputs % context_frames):
        raise UserError(f"{context_frames} context_frames do not divide {inputs} inputs; give a divisor, or leave "
                        "context_frames away")
    return (out, inputs // context_frames, context_frames) if len(shape) == 2 else (out, inputs, taps)


def to_kernel(weight: Tensor, context_frames: int = 1) -> Tensor:
    """The weight as (out, in, taps), in float32 at least."""
    out, inputs, taps = kernel_shape(weight.shape, context_frames)
    weight = exact(weight)
    return weight.view(out, taps, inputs).transpose(1, 2) if weight.dim() == 2 else weight


def from_kernel(kernel: Tensor, shape: Sequence[int]) -> Tensor:
    """What `to_kernel` made, as it was."""
    return kernel.transpose(1, 2).reshape(tuple(shape)) if len(shape) == 2 else kernel
