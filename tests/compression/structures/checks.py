"""What the tests of several structures check in the same way."""

import torch
from torch import Tensor
from torch.nn import functional

from asrcompress.compression import structures


def alone(name: str, weight: Tensor, size: float = 0.5) -> structures.Structure:
    """One layer, fitted alone at this size; with what its family needs where that can reach none."""
    others = {"dense": {"size": 1.0}, "tied": {"rank": 4}}
    return structures.fit(name, weight, **others.get(name, {"size": size}))


def check_product(layer, x: Tensor, stride: int, padding: int, dilation: int) -> None:
    """The fast product of a layer with cyclic tiles is that of its matrix, on x (N, in, T), in every position."""
    kernel = layer.dense() if len(layer.shape) == 3 else layer.dense().unsqueeze(2)
    padded = functional.pad(x.transpose(1, 2), (0, 0, padding, padding))
    expected = functional.conv1d(x, kernel, None, stride, padding, dilation).transpose(1, 2)
    torch.testing.assert_close(layer.product(padded, stride, dilation), expected)
