"""A matrix whose inputs are pieces side by side, such as spliced frames, as a kernel with a tap for each piece."""

from collections.abc import Sequence

from torch import Tensor

from asrcompress.compression.structures._base import exact
from asrcompress.errors import UserError


def kernel_shape(shape: Sequence[int], pieces: int = 1) -> tuple[int, int, int]:
    """(out, in, taps) of a kernel, (out, in / pieces, pieces) of a matrix. Errors: UserError unless they divide it."""
    out, inputs, taps = (*shape, 1)[:3]
    if pieces < 1 or (len(shape) == 2 and inputs % pieces):
        raise UserError(f"{pieces} pieces do not divide {inputs} inputs; give a divisor, or leave pieces away")
    return (out, inputs // pieces, pieces) if len(shape) == 2 else (out, inputs, taps)


def to_kernel(weight: Tensor, pieces: int = 1) -> Tensor:
    """The weight as (out, in, taps), in float32 at least."""
    out, inputs, taps = kernel_shape(weight.shape, pieces)
    weight = exact(weight)
    return weight.view(out, taps, inputs).transpose(1, 2) if weight.dim() == 2 else weight


def from_kernel(kernel: Tensor, shape: Sequence[int]) -> Tensor:
    """What `to_kernel` made, as it was."""
    return kernel.transpose(1, 2).reshape(tuple(shape)) if len(shape) == 2 else kernel
