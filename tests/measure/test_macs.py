import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from asrcompress import models
from asrcompress.compression import Plan, compress
from asrcompress.measure import macs


class Net(nn.Module):
    """Two convolutions and an output layer, on features of 5 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.config = {"features": 5}
        self.first = nn.Conv1d(5, 8, 3, stride=2, padding=1)
        self.second = nn.Conv1d(8, 6, 3, padding=1, groups=2)
        self.output = nn.Linear(6, 4)

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        y = self.second(self.first(x.transpose(1, 2)).relu())
        return self.output(y.transpose(1, 2)), x_lens


BY_HAND = 50 * 8 * 5 * 3 + 50 * 6 * 4 * 3 + 50 * 6 * 4  # 50 frames of output a second


def test_small_net_by_hand() -> None:
    assert macs.macs_per_second(Net()) == BY_HAND
    assert macs.macs(Net(), torch.zeros(2, 100, 5), torch.tensor([100, 90])) == 2 * BY_HAND  # padding is multiplied too


def test_the_model_is_left_as_it_was() -> None:
    net = Net()
    assert net.training and macs.macs_per_second(net) == BY_HAND and net.training
    assert not any(module._forward_hooks for module in net.modules())


def test_a_structure_answers_for_itself() -> None:
    net = Net()
    net.first.structure = Made()
    assert macs.macs(net, *macs.speech(net, 100)) == 1000 * 50 + 2 + BY_HAND - 50 * 8 * 5 * 3


class Made(nn.Module):
    shape = (8, 5, 3)

    def macs(self, frames: int, stride: int = 1) -> int:
        return 1000 * frames + stride


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, weight: Tensor) -> Tensor:
        return self.inner(weight)


def test_a_parametrized_layer_counts_once() -> None:
    net = Net()
    parametrize.register_parametrization(net.output, "weight", Twice())
    assert macs.macs_per_second(net) == BY_HAND


def test_tdnn_and_its_svd_against_torch() -> None:
    stack = [{"dim": 16, "taps": 3, "stride": 2, "repeat": 2}, {"dim": 16, "taps": 3, "dilation": 2}]
    model = models.build({"model": "tdnn", "features": 80, "vocab": 9, "stack": stack, "prefinal": 8})
    small, _ = compress(model, Plan(structure="svd", size=0.5))
    for net in (model, small):
        inputs = macs.speech(net, 200)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net.eval()(*inputs)
        assert macs.macs(net, *inputs) == counter.get_total_flops() // 2
    assert macs.macs_per_second(small) < macs.macs_per_second(model)
