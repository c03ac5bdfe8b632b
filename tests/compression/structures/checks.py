"""What the tests of several structures check in the same way."""

import torch
from torch import Tensor
from torch.nn import functional


def check_product(layer, x: Tensor, stride: int, padding: int, dilation: int) -> None:
    """The fast product of a layer with cyclic tiles is that of its matrix, on x (N, in, T), in every position."""
    kernel = layer.dense() if len(layer.shape) == 3 else layer.dense().unsqueeze(2)
    padded = functional.pad(x.transpose(1, 2), (0, 0, padding, padding))
    expected = functional.conv1d(x, kernel, None, stride, padding, dilation).transpose(1, 2)
    torch.testing.assert_close(layer.product(padded, stride, dilation), expected)
