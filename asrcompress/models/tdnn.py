"""Time-delay neural networks with a CTC output: plain, residual, and factored (TDNN-F).

Peddinti, Povey and Khudanpur, "A time delay neural network architecture ...", Interspeech 2015; Povey et al.,
"Semi-orthogonal low-rank matrix factorization for deep neural networks", Interspeech 2018.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from asrcompress.errors import UserError
from asrcompress.models.base import AcousticModel
from asrcompress.models.conv import BatchNorm1d, Conv1d


class PNorm(nn.Module):
    """Euclidean norm of groups of channels: (N, C, T) -> (N, C / size, T). Zhang et al., ICASSP 2014."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        n, c, t = x.shape
        return x.reshape(n, c // self.size, self.size, t).square().sum(2).add(1e-8).sqrt()


class Layer(nn.Module):
    """[linear bottleneck ->] convolution -> BatchNorm -> activation -> dropout [+ bypass * input].

    With a bottleneck this is Kaldi's tdnnf-layer: the linear half sees the taps (-dilation, 0), the affine half
    (0, dilation); their sum is the 3-tap context of the plain layer.
    """

    def __init__(self, inputs: int, outputs: int, taps: int, stride: int = 1, dilation: int = 1, *, bottleneck: int = 0,
                 pnorm: int = 0, dropout: float = 0.0, bypass: float = 0.0, folded: bool = False) -> None:
        super().__init__()
        if pnorm and outputs % pnorm:
            raise UserError(f"model: p-norm groups of {pnorm} do not divide dim {outputs}; choose a multiple")
        if bottleneck:
            if stride > 1:
                raise UserError("model: a layer with a bottleneck cannot have a stride; put it in a plain layer")
            halves = 2 if taps > 1 else 1
            self.linear: nn.Module = Conv1d(inputs, bottleneck, halves, padding=dilation * (halves - 1),
                                            dilation=dilation, bias=False)
            self.conv = Conv1d(bottleneck, outputs, halves, dilation=dilation, bias=folded)
        else:
            self.linear = nn.Identity()
            if dilation * (taps - 1) % 2:
                raise UserError(f"model: {taps} taps at dilation {dilation} are not centred; "
                                "use odd taps or an even dilation")
            self.conv = Conv1d(inputs, outputs, taps, stride, dilation * (taps - 1) // 2, dilation, bias=folded)
        self.batchnorm = nn.Identity() if folded else BatchNorm1d(outputs)
        self.activation = PNorm(pnorm) if pnorm else nn.ReLU()
        self.dropout = nn.Dropout1d(dropout)  # one mask for all frames of an utterance, as in Kaldi; and cheap
        self.bypass = bypass if stride == 1 and inputs == outputs and not pnorm else 0.0

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(self.activation(self.batchnorm(self.conv(self.linear(x)))))
        return torch.add(y, x, alpha=self.bypass) if self.bypass else y


class TDNN(AcousticModel):
    """x (N, T, features), x_lens (N,) -> log_probs (N, T', vocab), lengths (N,), with T' = ceil(T / subsampling).

    `stack` is a list of {dim, taps, stride, dilation, repeat, bottleneck, pnorm} (dim and taps are required). Each
    utterance is normalised by its own mean over time, which a device can do as well. Frames past the end of an
    utterance are held at zero before every layer, so a batch gives the same numbers as its utterances one by one.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = dict(config)
        folded, dropout, bypass = (config.get(key, 0) for key in ("folded", "dropout", "bypass"))
        channels = int(config["features"])
        self.layers = nn.ModuleList()
        for row in config["stack"]:
            options = {key: value for key, value in row.items() if key not in ("dim", "repeat")}
            for _ in range(row.get("repeat", 1)):
                layer = Layer(channels, row["dim"], dropout=dropout, bypass=bypass, folded=bool(folded), **options)
                self.layers.append(layer)
                channels = row["dim"] // (row.get("pnorm") or 1)
        self.strides = [row.get("stride", 1) for row in config["stack"] for _ in range(row.get("repeat", 1))]
        self.subsampling = math.prod(self.strides)
        self.prefinal = nn.Linear(channels, config["prefinal"], bias=False) if config.get("prefinal") else nn.Identity()
        self.output = nn.Linear(config.get("prefinal") or channels, config["vocab"])

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        mask = _mask(x_lens, x.shape[1])
        mean = (x * mask.transpose(1, 2)).sum(1, keepdim=True) / x_lens[:, None, None]
        y, lens = (x - mean).transpose(1, 2), x_lens
        for layer, stride in zip(self.layers, self.strides, strict=True):
            y = layer(y * mask.to(y.dtype))
            if stride > 1:
                lens = (lens + stride - 1) // stride
                mask = _mask(lens, y.shape[2])
        logits = self.output(self.prefinal(y.transpose(1, 2)))
        return logits.float().log_softmax(-1), lens

    def batchnorm_pairs(self) -> Iterator[tuple[str, str]]:
        for i, layer in enumerate(self.layers):
            if isinstance(layer.batchnorm, BatchNorm1d):
                yield f"layers.{i}.conv", f"layers.{i}.batchnorm"

    def semi_orthogonal(self) -> Iterator[nn.Conv1d]:
        for layer in self.layers:
            if isinstance(layer.linear, nn.Conv1d):
                yield layer.linear


def _mask(lens: Tensor, length: int) -> Tensor:
    """(N, 1, length): 1 inside each utterance, 0 past its end."""
    return (torch.arange(length, device=lens.device) < lens[:, None]).unsqueeze(1).float()
