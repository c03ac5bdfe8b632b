"""Convolution over time, laid out for speed. It stands apart because models and compressed layers both use it.

It sees (N, C, T) as an image of height 1 in channels-last memory. On a CPU in bfloat16 this is about 1.7 times as fast
as torch's `conv1d` (oneDNN then multiplies matrices without reordering the activations), with the same result.
"""

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

from asrcompress.threads import one_thread


def conv1d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, padding: int = 0,
           dilation: int = 1, groups: int = 1) -> Tensor:
    """`torch.nn.functional.conv1d`: x (N, in, T), weight (out, in / groups, taps) -> (N, out, T')."""
    if dilation > 1 and not _in_a_graph() and x.shape[-1] <= dilation:
        # oneDNN 3.10 may crash on so short an input in the layout below; of one frame `contiguous` changes nothing.
        x, weight = (one.clone(memory_format=torch.contiguous_format) for one in (x, weight))
        return functional.conv1d(x, weight, bias, stride, padding, dilation, groups)
    image = x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
    kernel = weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)
    # oneDNN 3.10 never ends a depthwise convolution in bfloat16 whose batch is no multiple of its threads.
    half = x.dtype == torch.bfloat16 or torch.is_autocast_enabled(x.device.type)
    alone = half and weight.shape[1] == 1 < groups and x.device.type == "cpu"
    with one_thread() if alone else nullcontext():
        return functional.conv2d(image, kernel, bias, (1, stride), (0, padding), (1, dilation), groups).squeeze(2)


def _in_a_graph() -> bool:
    """Whether torch records what is computed, for inputs of any length, so that nothing may depend on it."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


class Conv1d(nn.Conv1d):
    """`torch.nn.Conv1d` (zero padding), computed by `conv1d`: (N, in, T) -> (N, out, T')."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, in, T) -> (N, out, T')."""
        return conv1d(input, self.weight, self.bias, self.stride[0], int(self.padding[0]), self.dilation[0],
                      self.groups)
