"""What oneDNN may do to a process, each in one of its own. That results are torch's is in tests/models/test_conv.py."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from asrcompress.convolution import Conv1d

SHORT = """
import sys, torch
from asrcompress.compression import structures
from asrcompress.convolution import conv1d
torch.manual_seed(0)
with torch.no_grad():
    x, weight, bias = torch.randn(2, 16, 1), torch.randn(16, 16, 2), torch.randn(16)
    name = sys.argv[1]
    layer = None if name == "dense" else structures.fit(name, weight, size=0.5)
    weight = weight if layer is None else layer.dense().contiguous()  # of others torch itself dies
    for _ in range(200):
        y = conv1d(x, weight, bias, 3, 4, 2) if layer is None else layer.conv1d(x, 3, 4, 2, bias=bias)
    torch.testing.assert_close(y, torch.nn.functional.conv1d(x, weight, bias, 3, 4, 2), atol=1e-4, rtol=1e-4)
"""

DEPTHWISE = """
import torch
from asrcompress.convolution import conv1d
torch.set_num_threads(2)
for batch, frames in ((1, 56), (1, 370), (3, 200), (5, 40), (5, 296)):
    x, weight = torch.randn(batch, 144, frames), torch.randn(144, 1, 15)
    expected = torch.nn.functional.conv1d(x, weight, padding=7, groups=144)
    with torch.autocast("cpu", torch.bfloat16):
        found = conv1d(x, weight, padding=7, groups=144)
    halves = conv1d(x.bfloat16(), weight.bfloat16(), padding=7, groups=144)
    assert found.dtype == halves.dtype == torch.bfloat16 and torch.get_num_threads() == 2
    for one in (found, halves):
        torch.testing.assert_close(one.float(), expected, atol=0.1, rtol=0.02)
"""


def test_depthwise_in_bfloat16_ends_on_two_threads() -> None:
    """oneDNN went round for ever, so that no Conformer could be trained on two cores with bfloat16."""
    subprocess.run([sys.executable, "-c", DEPTHWISE], check=True, timeout=120)


@pytest.mark.parametrize("name", ["dense", "hashed"])
def test_an_input_no_longer_than_the_dilation_does_not_end_the_process(name: str) -> None:
    """With padding, dilation and a stride, oneDNN's convolution in channels-last died of a signal."""
    subprocess.run([sys.executable, "-c", SHORT, name], check=True, timeout=120)


def test_a_graph_of_it_is_for_inputs_of_any_length() -> None:
    model, x = nn.Sequential(Conv1d(8, 8, 3, padding=2, dilation=2)).eval(), torch.randn(1, 8, 20)
    graph = torch.export.export(model, (x,), dynamic_shapes=({2: torch.export.Dim("frames")},)).module()
    torch.testing.assert_close(graph(x[..., :7]), model(x[..., :7]))
