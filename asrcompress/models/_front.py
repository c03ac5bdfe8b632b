"""Front ends of the Conformer: 100 frames of features a second to 25 vectors, the one at t centred on frame 4 t.

Both take x (N, T, features) and a mask (N, 1, T), which is 0 past the end of an utterance, and give (N, T', dim) and
the mask (N, 1, T') with T' = ceil(T / 4). Frames past the end are held at zero before every convolution.
"""

import torch
from torch import Tensor, nn

from asrcompress.models.tdnn import Layer


class Strided(nn.ModuleList):
    """Two layers of a TDNN with stride 2, over all mel bins at once: 5 taps to `channels`, 3 taps to `dim`."""

    def __init__(self, features: int, channels: int, dim: int, folded: bool) -> None:
        super().__init__([Layer(features, channels, 5, 2, folded=folded), Layer(channels, dim, 3, 2, folded=folded)])

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        y = x.transpose(1, 2)
        for layer in self:
            y, mask = layer(y * mask.to(y.dtype)), mask[:, :, ::2]
        return y.transpose(1, 2), mask


class Conv2dLayer(nn.Module):
    """3x3 convolution over time and mel -> BatchNorm -> ReLU: (N, C, T, F) -> (N, C', ceil(T / s), ceil(F / s)).

    BatchNorm rather than a bias, as in the other front end: folded, it costs nothing.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, folded: bool) -> None:
        super().__init__()
        convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=folded)
        # A fifth faster in training on a CPU.
        self.conv: nn.Conv2d = convolution.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.batchnorm = nn.Identity() if folded else nn.BatchNorm2d(outputs)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.batchnorm(self.conv(x)))


class Conv2d(nn.Module):
    """Images of time and mel through 1 -> 8 -> 32 -> 64 channels, strides 1, 2, 2; then a linear map to `dim`."""

    channels, strides = (1, 8, 32, 64), (1, 2, 2)

    def __init__(self, features: int, dim: int, folded: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            Conv2dLayer(inputs, outputs, stride, folded)
            for inputs, outputs, stride in zip(self.channels, self.channels[1:], self.strides, strict=False))
        self.out = nn.Linear((features + 3) // 4 * self.channels[-1], dim)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        y = x.unsqueeze(1)
        for layer, stride in zip(self.layers, self.strides, strict=True):
            y, mask = layer(y * mask.unsqueeze(3).to(y.dtype)), mask[:, :, ::stride]
        return self.out(y.permute(0, 2, 3, 1).flatten(2)), mask  # of each frame: mel bins, their channels side by side
