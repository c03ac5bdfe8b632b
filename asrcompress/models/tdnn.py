"""Time-delay neural networks with a CTC output: plain, residual, and factored (TDNN-F).

Peddinti, Povey and Khudanpur, "A time delay neural network architecture ...", Interspeech 2015; Povey et al.,
"Semi-orthogonal low-rank matrix factorization for deep neural networks", Interspeech 2018.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from asrcompress.errors import UserError
from asrcompress.models._conv import BatchNorm1d, Conv1d
from asrcompress.models._lma import LMA, activation, check_segments
from asrcompress.models.base import AcousticModel
from asrcompress.options import require


@dataclass(frozen=True)
class Row:
    """One layer of the stack, or `repeat` of them."""

    dim: int  # outputs of its convolution
    taps: int  # frames of context
    stride: int = 1
    dilation: int = 1
    repeat: int = 1
    bottleneck: int = 0  # inner dimension of a factored layer; 0: one convolution
    pnorm: int = 0  # channels in a p-norm group; 0: the activation of the net

    def __post_init__(self) -> None:
        for name, low in (("dim", 1), ("taps", 1), ("stride", 1), ("dilation", 1), ("repeat", 1), ("bottleneck", 0),
                          ("pnorm", 0)):
            value = getattr(self, name)
            require(value >= low, f"model tdnn: {name} of a row of the stack is {value}; it is at least {low}")


@dataclass(frozen=True)
class TDNNOptions:
    """What a TDNN is made of."""

    stack: tuple[Row, ...]
    features: int = 80  # mel bins of a frame
    dropout: float = 0.0
    bypass: float = 0.0  # share of a layer's input that is added to its output, where the shapes are the same
    activation: Literal["relu", "lma", "lma_continuous"] = "relu"
    segments: int = 8  # of an LMA
    prefinal: int = 0  # dimension of a linear map before the output; 0: none
    folded: bool = False  # biases instead of BatchNorms, which were folded

    def __post_init__(self) -> None:
        require(self.features > 0 and self.prefinal >= 0, f"model tdnn: features is {self.features} and prefinal "
                f"{self.prefinal}; features are at least 1, prefinal at least 0")
        require(0 <= self.dropout < 1, f"model tdnn: dropout is {self.dropout:g}; it is from 0 to below 1")
        check_segments("tdnn", self.segments)


class PNorm(nn.Module):
    """Euclidean norm of groups of channels, less its mean over Gaussian ones: (N, C, T) -> (N, C / size, T).

    Zhang et al., ICASSP 2014. The mean, which a bias can make up for, would turn every step of the next weights into a
    step of its outputs that all frames share: a six-layer net hardly learns with it.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.mean = math.sqrt(2) * math.exp(math.lgamma((size + 1) / 2) - math.lgamma(size / 2))  # chi distribution

    def forward(self, x: Tensor) -> Tensor:
        n, c, t = x.shape
        return x.reshape(n, c // self.size, self.size, t).square().sum(2).add(1e-8).sqrt() - self.mean


class Layer(nn.Module):
    """[linear bottleneck ->] convolution -> BatchNorm -> activation -> dropout [+ bypass * input].

    With a bottleneck this is Kaldi's tdnnf-layer: the linear half sees the taps (-dilation, 0), the affine half
    (0, dilation); their sum is the 3-tap context of the plain layer.
    """

    def __init__(self, inputs: int, outputs: int, taps: int, stride: int = 1, dilation: int = 1, *, bottleneck: int = 0,
                 pnorm: int = 0, dropout: float = 0.0, bypass: float = 0.0, folded: bool = False,
                 nonlinearity: str = "relu", segments: int = 8) -> None:
        super().__init__()
        if pnorm and outputs % pnorm:
            raise UserError(f"model: p-norm groups of {pnorm} do not divide dim {outputs}; choose a multiple")
        if bottleneck:
            if stride > 1:
                raise UserError("model: a layer with a bottleneck cannot have a stride; put it in a plain layer")
            if taps not in (1, 3):
                raise UserError(f"model: a layer with a bottleneck has 1 or 3 taps, not {taps}; choose a larger "
                                "dilation for a wider context")
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
        self.activation = PNorm(pnorm) if pnorm else activation(nonlinearity, segments, "relu")
        self.dropout = nn.Dropout1d(dropout)  # one mask for all frames of an utterance, as in Kaldi; and cheap
        self.bypass = bypass if stride == 1 and inputs == outputs and not pnorm else 0.0

    def forward(self, x: Tensor, inside: Tensor | None = None) -> Tensor:
        """(N, C, T) -> (N, C', T'); `inside` (N, T', 1) is 0 where an output lies past the end of its utterance."""
        y = self.batchnorm(self.conv(self.linear(x)))
        if isinstance(self.activation, LMA):
            y = self.activation(y.transpose(1, 2), inside).transpose(1, 2)
        else:
            y = self.activation(y)
        y = self.dropout(y)
        return torch.add(y, x, alpha=self.bypass) if self.bypass else y


class TDNN(AcousticModel):
    """x (N, T, features), x_lens (N,) -> log_probs (N, T', vocab), lengths (N,), with T' = ceil(T / subsampling).

    Each utterance is normalized by its own mean over time, which a device can do as well. Frames past the end of an
    utterance are held at zero before every layer, so a batch gives the same numbers as its utterances one by one.
    """

    name = "tdnn"
    Options = TDNNOptions

    def __init__(self, config: Mapping[str, Any], options: TDNNOptions) -> None:
        super().__init__(config, options)
        rows = [row for row in options.stack for _ in range(row.repeat)]
        channels = options.features
        self.layers = nn.ModuleList()
        for row in rows:
            how = {key: value for key, value in asdict(row).items() if key not in ("dim", "repeat")}
            self.layers.append(Layer(channels, row.dim, dropout=options.dropout, bypass=options.bypass,
                                     folded=options.folded, nonlinearity=options.activation,
                                     segments=options.segments, **how))
            channels = row.dim // (row.pnorm or 1)
        self.strides = [row.stride for row in rows]
        self.subsampling = math.prod(self.strides)
        self.prefinal = nn.Linear(channels, options.prefinal, bias=False) if options.prefinal else nn.Identity()
        self.output = nn.Linear(options.prefinal or channels, config["vocab"])

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        if not x.shape[1]:  # a convolution needs a frame
            return x.new_zeros(len(x), 0, self.output.out_features), x_lens
        mask = frame_mask(x_lens, x.shape[1])
        mean = (x * mask.transpose(1, 2)).sum(1, keepdim=True) / x_lens.clamp(min=1)[:, None, None]
        y, lens = (x - mean).transpose(1, 2), x_lens
        for layer, stride in zip(self.layers, self.strides, strict=True):
            y, mask, lens = y * mask.to(y.dtype), mask[:, :, ::stride], (lens + stride - 1) // stride
            y = layer(y, mask.transpose(1, 2))
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


def frame_mask(lens: Tensor, length: int) -> Tensor:
    """Lengths (N,) -> (N, 1, length): 1 inside each utterance, 0 past its end."""
    return (torch.arange(length, device=lens.device) < lens[:, None]).unsqueeze(1).float()
