"""Hand counts, and torch's own flop counter where it sees the products."""

from typing import Any

import pytest
import torch
import torchaudio
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from asrcompress import models
from asrcompress.compression import Plan, compress, modules, structures
from asrcompress.errors import UserError
from asrcompress.measure import inputs, macs


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


def by_torch(model: nn.Module, *arguments: Any, **named: Any) -> int:
    """Half of what torch's flop counter says, attention in plain products."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model.eval()(*arguments, **named)
    return counter.get_total_flops() // 2


def test_small_net_by_hand() -> None:
    assert macs.macs_per_second(Net()) == BY_HAND
    assert macs.macs(Net(), torch.zeros(2, 100, 5), torch.tensor([100, 90])) == 2 * BY_HAND  # padding is multiplied too


def test_the_model_is_left_as_it_was() -> None:
    net = Net()
    net.second.eval()
    assert macs.macs_per_second(net) == BY_HAND and net.training and net.first.training and not net.second.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert torch.backends.mha.get_fastpath_enabled() and torch.backends.mkldnn.enabled


class Made(structures.Structure):
    """Its own count, and products that must not be counted beside it."""

    def __init__(self) -> None:
        super().__init__((8, 5, 3))

    def conv1d(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        return (torch.ones(8, 5) @ x)[..., ::2]

    def macs(self, frames: int, stride: int = 1) -> int:
        return 1000 * frames + stride


def test_a_structure_answers_for_itself() -> None:
    net = Net()
    net.first = modules.StructuredConv1d(Made(), None, 2, 1)  # type: ignore[assignment]
    assert macs.macs(net, torch.zeros(1, 100, 5), torch.tensor([100])) == 1000 * 50 + 2 + BY_HAND - 50 * 8 * 5 * 3


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, weight: Tensor) -> Tensor:
        return self.inner(weight)


def test_making_a_weight_does_not_count() -> None:
    net = Net()
    parametrize.register_parametrization(net.output, "weight", Twice())
    assert macs.macs_per_second(net) == BY_HAND


ATTENTION = 2 * 30 * 16 * 3 * 16 + 2 * 2 * 30 * 30 * 16 + 2 * 30 * 16 * 16  # N 2, T 30, C 16: q k v, two products, out


@pytest.mark.parametrize("structure", ["dense", "svd", "hashed", "ldr", "tensor_train"])
def test_attention_by_hand(structure: str) -> None:
    """A rebuilt projection is multiplied as a dense one is: what rebuilt it is not counted, as frames or otherwise."""
    attention, x = nn.MultiheadAttention(16, 4, batch_first=True), torch.randn(2, 30, 16)
    if structure != "dense":
        for path, weight, _ in list(modules.weights(attention)):
            modules.replace_layer(attention, path, structures.init(structure, weight.shape, 0.5))
    assert macs.macs(attention, x, x, x) == macs.macs(attention, x, x, x, need_weights=False) == ATTENTION


def test_an_encoder_layer_whose_fused_kernel_torch_would_take() -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 40, batch_first=True)
    assert macs.macs(layer, torch.randn(2, 30, 16)) == ATTENTION + 2 * 2 * 30 * 16 * 40


def test_einsum_matmul_and_vectors_by_hand() -> None:
    class Products(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return torch.einsum("bij,bkj->bik", x, y) @ x[0, :5].sum(1) + torch.baddbmm(x, x @ y.mT, y)[..., 0]

    x, y = torch.randn(3, 5, 7), torch.randn(3, 5, 7)
    assert macs.macs(Products(), x, y) == 3 * 5 * 5 * 7 + 3 * 5 * 5 + 3 * 5 * 7 * 5 * 2


@pytest.mark.parametrize("kind, gates", [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers_by_hand(kind: Any, gates: int) -> None:
    layer = kind(10, 6, 2, bidirectional=True, batch_first=True)
    first, second = gates * 6 * (10 + 6), gates * 6 * (12 + 6)
    assert macs.macs(layer, torch.randn(3, 20, 10)) == 3 * 20 * 2 * (first + second)


def test_tdnn_and_its_svd_against_torch() -> None:
    stack = [{"dim": 16, "taps": 3, "stride": 2, "repeat": 2}, {"dim": 16, "taps": 3, "dilation": 2}]
    model = models.build({"model": "tdnn", "features": 80, "vocab": 9, "stack": stack, "prefinal": 8})
    small, _ = compress(model, Plan(structure="svd", size=0.5))
    for net in (model, small):
        arguments = inputs.example(net, 2).arguments
        assert macs.macs(net, **arguments) == by_torch(net, **arguments)
    assert macs.macs_per_second(small) < macs.macs_per_second(model)


def test_conformer_by_hand_and_against_torch() -> None:
    model = torchaudio.models.Conformer(8, 2, 12, 1, 3)
    x, lens = torch.randn(2, 20, 8), torch.tensor([20, 15])
    feed_forward, attention = 2 * 2 * 8 * 12, 3 * 8 * 8 + 2 * 20 * 8 + 8 * 8
    convolution = 8 * 16 + 8 * 3 + 8 * 8  # pointwise with its gate, depthwise, pointwise
    assert macs.macs(model, x, lens) == 2 * 20 * (feed_forward + attention + convolution) == by_torch(model, x, lens)


def test_whisper_encoder_against_torch() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.WhisperConfig(d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
                                        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24,
                                        num_mel_bins=20, max_source_positions=50, vocab_size=10, pad_token_id=0)
    encoder = transformers.WhisperModel(config).eval().encoder
    x = inputs.example(encoder)
    assert x.seconds == 1 and x.arguments["input_features"].shape == (1, 20, 100)
    by_hand = 100 * 16 * 20 * 3 + 50 * 16 * 16 * 3 + 50 * (4 * 16 * 16 + 2 * 50 * 16 + 2 * 16 * 24)
    assert macs.macs_per_second(encoder) == by_hand == by_torch(encoder, **x.arguments)


def test_unknown_inputs_are_one_sentence() -> None:
    with pytest.raises(UserError, match="what a Linear takes is not known; give its inputs"):
        macs.macs_per_second(nn.Linear(2, 2))
