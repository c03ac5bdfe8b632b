import itertools

import pytest
import torch
from torch import nn

from asrcompress.convolution import conv1d
from asrcompress.models._conv import BatchNorm1d, Conv1d


@pytest.mark.parametrize(
    "taps, stride, padding, dilation", itertools.product((1, 2, 3, 5), (1, 2, 3), (0, 1, 4), (1, 2, 3))
)
def test_conv1d_is_torchs(taps: int, stride: int, padding: int, dilation: int) -> None:
    x = torch.randn(2, 7, 20, requires_grad=True)
    weight, bias = torch.randn(5, 7, taps, requires_grad=True), torch.randn(5, requires_grad=True)
    for offset in (bias, None):
        arguments = (x, weight, offset, stride, padding, dilation)
        found, expected = conv1d(*arguments), nn.functional.conv1d(*arguments)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    toward = torch.randn_like(found)
    gradients = [torch.autograd.grad((result * toward).sum(), (x, weight)) for result in (found, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("groups", [1, 2])
def test_layer_is_torchs(groups: int) -> None:
    options = {"stride": 2, "padding": 4, "dilation": 2, "groups": groups}
    ours, theirs = Conv1d(6, 4, 3, **options), nn.Conv1d(6, 4, 3, **options)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 6, 17)
    torch.testing.assert_close(ours(x), theirs(x))
    assert isinstance(ours, nn.Conv1d)


def test_batchnorm_is_torchs_in_training_and_after() -> None:
    ours, theirs = BatchNorm1d(6), nn.BatchNorm1d(6)
    with torch.no_grad():
        ours.weight.uniform_(0.5, 2)
        ours.bias.normal_()
    theirs.load_state_dict(ours.state_dict())
    for _ in range(3):
        x = 2 * torch.randn(4, 6, 11) + 1
        torch.testing.assert_close(ours(x), theirs(x))
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_batchnorm_needs_three_dimensions() -> None:
    with pytest.raises(ValueError, match=r"expected \(N, C, T\), got 2"):
        BatchNorm1d(6)(torch.randn(4, 6))
