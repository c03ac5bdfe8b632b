"""Conformer encoders with a CTC output: attention and convolution, a macaron of half feed-forward steps around both.

Gulati et al., "Conformer: convolution-augmented Transformer for speech recognition", Interspeech 2020; rotary positions
of Su et al., "RoFormer", arXiv 2104.09864.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from asrcompress.models._conv import BatchNorm1d, Conv1d
from asrcompress.models._front import Conv2d, Strided
from asrcompress.models._lma import activate, activation, check_segments
from asrcompress.models.base import AcousticModel
from asrcompress.models.tdnn import frame_mask
from asrcompress.options import require

MASKED = -1e4  # added to scores of frames past the end; -inf would give NaN where an utterance has no frame at all


@dataclass(frozen=True)
class ConformerOptions:
    """What a Conformer is made of."""

    features: int = 80  # mel bins of a frame
    dim: int = 144  # of a frame between blocks
    heads: int = 4
    hidden: int = 576  # of the feed-forward modules
    kernel: int = 15  # frames of the depthwise convolution
    blocks: int = 8
    front_end: Literal["strided", "conv2d"] = "strided"
    front: int = 256  # channels between the two convolutions of a strided front end
    positions: Literal["rope", "none"] = "rope"
    activation: Literal["silu", "relu", "lma", "lma_continuous"] = "silu"
    segments: int = 8  # of an LMA
    dropout: float = 0.1
    stochastic_depth: float = 0.1  # the last block is left out of so many training steps, earlier ones of fewer
    folded: bool = False  # biases instead of BatchNorms and of gains of LayerNorms, which were folded

    def __post_init__(self) -> None:
        for name in ("features", "dim", "heads", "hidden", "kernel", "blocks", "front"):
            require(getattr(self, name) >= 1, f"model conformer: {name} is {getattr(self, name)}; it is at least 1")
        require(self.dim % self.heads == 0 and self.kernel % 2 == 1, f"model conformer: heads ({self.heads}) divide "
                f"dim ({self.dim}), and kernel ({self.kernel}) is odd")
        require(self.positions == "none" or self.dim // self.heads % 2 == 0,
                f"model conformer: rotary positions need an even dim / heads, not {self.dim // self.heads}")
        for name in ("dropout", "stochastic_depth"):
            require(0 <= getattr(self, name) < 1,
                    f"model conformer: {name} is {getattr(self, name):g}; it is from 0 to below 1")
        check_segments("conformer", self.segments)


class Dropout(nn.Module):
    """One mask for all frames of an utterance: (N, T, C) -> (N, T, C). Cheaper than one for each value."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        return x * functional.dropout(x.new_ones(len(x), 1, x.shape[2]), self.p)


def input_norm(options: ConformerOptions) -> nn.LayerNorm:
    """The norm that a module begins with: (N, T, dim) -> (N, T, dim)."""
    return nn.LayerNorm(options.dim, elementwise_affine=not options.folded)


class FeedForward(nn.Module):
    """LayerNorm, up, activation, down: (N, T, dim) -> (N, T, dim); `inside` (N, T, 1) is 0 past an utterance's end."""

    def __init__(self, options: ConformerOptions) -> None:
        super().__init__()
        self.norm = input_norm(options)
        self.up = nn.Linear(options.dim, options.hidden)
        self.activation = activation(options.activation, options.segments, "silu")
        self.dropout = Dropout(options.dropout)
        self.down = nn.Linear(options.hidden, options.dim)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        return self.down(self.dropout(activate(self.activation, self.up(self.norm(x)), inside)))


class Attention(nn.Module):
    """LayerNorm and self-attention: (N, T, dim) -> (N, T, dim).

    Queries, keys and values are layers of their own, since they bear compression unequally. `bias` (N, 1, 1, T) is
    added to the scores; `rotation` holds the cosines and sines (T, dim / heads / 2) of rotary positions, if any.
    """

    def __init__(self, options: ConformerOptions) -> None:
        super().__init__()
        self.heads = options.heads
        self.norm = input_norm(options)
        self.query, self.key, self.value, self.out = (nn.Linear(options.dim, options.dim) for _ in range(4))

    def forward(self, x: Tensor, bias: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        u = self.norm(x)
        q, k, v = (layer(u).unflatten(2, (self.heads, -1)).transpose(1, 2)
                   for layer in (self.query, self.key, self.value))
        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
        y = attend(q, k, v, bias.to(q.dtype))
        return self.out(y.transpose(1, 2).flatten(2))


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(n) + bias) v, for q, k, v (N, heads, T, n) and a bias (N, 1, 1, T)."""
    if q.dtype == torch.bfloat16 and q.device.type == "cpu":  # torch's own takes nearly twice as long there
        weights = (q * q.shape[-1] ** -0.5 @ k.transpose(2, 3) + bias).softmax(-1)
        return weights.to(v.dtype) @ v
    return functional.scaled_dot_product_attention(q, k, v, bias)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the halves of each head (N, heads, T, 2 n) by the angles whose cosines and sines (T, n) are given."""
    one, two = x.chunk(2, -1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat((one * cos - two * sin, two * cos + one * sin), -1)


def rotation_of(frames: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines (frames, size / 2) of the angles t * 10000^(-2 i / size)."""
    rates = 10000.0 ** (torch.arange(0, size, 2, device=device) / -size)
    angles = torch.arange(frames, device=device)[:, None] * rates
    return angles.cos(), angles.sin()


class Convolution(nn.Module):
    """LayerNorm, gate, depthwise convolution, BatchNorm, activation: (N, T, dim) -> (N, T, dim).

    The gate's output times `inside` (N, T, 1), so that no frame sees what lies past the end of its utterance.
    """

    def __init__(self, options: ConformerOptions) -> None:
        super().__init__()
        dim = options.dim
        self.norm = input_norm(options)
        self.pointwise_in = nn.Linear(dim, 2 * dim)
        self.depthwise = Conv1d(dim, dim, options.kernel, padding=options.kernel // 2, groups=dim,
                                bias=options.folded)
        self.batchnorm = nn.Identity() if options.folded else BatchNorm1d(dim)
        self.activation = activation(options.activation, options.segments, "silu")
        self.dropout = Dropout(options.dropout)
        self.pointwise_out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        y = functional.glu(self.pointwise_in(self.norm(x)), -1) * inside.to(x.dtype)
        y = self.batchnorm(self.depthwise(y.transpose(1, 2))).transpose(1, 2)
        return self.pointwise_out(self.dropout(activate(self.activation, y, inside)))


class Block(nn.Module):
    """Half a feed-forward step, attention, convolution, half a feed-forward step, LayerNorm: (N, T, dim)."""

    def __init__(self, options: ConformerOptions) -> None:
        super().__init__()
        self.ff1, self.attention = FeedForward(options), Attention(options)
        self.convolution, self.ff2 = Convolution(options), FeedForward(options)
        self.dropout = Dropout(options.dropout)
        self.norm = nn.LayerNorm(options.dim)

    def forward(self, x: Tensor, inside: Tensor, bias: Tensor, rotation: tuple[Tensor, Tensor] | None,
                scale: float = 1.0) -> Tensor:
        """`scale` stands for the training steps in which the block is left out."""
        x = x + 0.5 * scale * self.dropout(self.ff1(x, inside))
        x = x + scale * self.dropout(self.attention(x, bias, rotation))
        x = x + scale * self.dropout(self.convolution(x, inside))
        x = x + 0.5 * scale * self.dropout(self.ff2(x, inside))
        return self.norm(x)


class Conformer(AcousticModel):
    """x (N, T, features), x_lens (N,) -> log_probs (N, T', vocab), lengths (N,), with T' = ceil(T / 4).

    The front end is that of our TDNNs, two strided convolutions, so output t is centred on input 4 t in both families
    and one can teach the other. Each utterance is normalized by its own mean over time. What lies past its end is kept
    out at three places: the inputs of the front end, the keys of the attention, the inputs of the depthwise
    convolution; so a batch gives the same numbers as its utterances one by one.
    """

    name = "conformer"
    Options = ConformerOptions
    subsampling = 4

    def __init__(self, config: Mapping[str, Any], options: ConformerOptions) -> None:
        super().__init__(config, options)
        self.options = options
        self.front = front(options)
        self.dropout = Dropout(options.dropout)
        self.blocks = nn.ModuleList(Block(options) for _ in range(options.blocks))
        self.output = nn.Linear(options.dim, config["vocab"])

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        if not x.shape[1]:  # a convolution needs a frame
            return x.new_zeros(len(x), 0, self.output.out_features), x_lens
        mask, lens = frame_mask(x_lens, x.shape[1]), (x_lens + 3) // 4
        mean = (x * mask.transpose(1, 2)).sum(1, keepdim=True) / x_lens.clamp(min=1)[:, None, None]
        y, mask = self.front(x - mean, mask)
        y, inside = self.dropout(y), mask.transpose(1, 2)
        bias = (1 - mask.unsqueeze(1)) * MASKED
        rotation = None
        if self.options.positions == "rope":
            rotation = rotation_of(y.shape[1], self.options.dim // self.options.heads, y.device)
        self.intermediate = None
        for i, block in enumerate(self.blocks):
            dropped = self.options.stochastic_depth * (i + 1) / len(self.blocks) if self.training else 0.0
            if dropped and float(torch.rand(())) < dropped:
                y = _unchanged(y, block)
            else:
                y = block(y, inside, bias, rotation, 1 / (1 - dropped))
            if self.with_intermediate and i + 1 == max(1, len(self.blocks) // 2):
                self.intermediate = self.output(y).float().log_softmax(-1)
        return self.output(y).float().log_softmax(-1), lens

    def batchnorm_pairs(self) -> Iterator[tuple[str, str]]:
        for path, module in self.named_modules():
            if isinstance(getattr(module, "batchnorm", None), BatchNorm1d | nn.BatchNorm2d):
                yield f"{path}.{'depthwise' if isinstance(module, Convolution) else 'conv'}", f"{path}.batchnorm"

    def layernorm_pairs(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """All but those that end a block, which the next one adds to."""
        readers = {"ff1": ("up",), "attention": ("query", "key", "value"), "convolution": ("pointwise_in",),
                   "ff2": ("up",)}
        for path in (f"blocks.{i}.{part}" for i in range(len(self.blocks)) for part in readers):
            if self.get_submodule(f"{path}.norm").elementwise_affine:
                yield f"{path}.norm", tuple(f"{path}.{name}" for name in readers[path.rpartition(".")[2]])

    def channel_pairs(self) -> Iterator[tuple[str, str]]:
        for path in (f"blocks.{i}" for i in range(len(self.blocks))):
            yield f"{path}.attention.value", f"{path}.attention.out"
            if self.options.activation == "relu":
                yield from ((f"{path}.{part}.up", f"{path}.{part}.down") for part in ("ff1", "ff2"))


def front(options: ConformerOptions) -> Strided | Conv2d:
    """The front end that the options name."""
    if options.front_end == "conv2d":
        return Conv2d(options.features, options.dim, options.folded)
    return Strided(options.features, options.front, options.dim, options.folded)


def _unchanged(x: Tensor, block: nn.Module) -> Tensor:
    """x; where several processes train, each must have a gradient of every parameter, if one of zero."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return x + 0.0 * sum(parameter.sum() for parameter in block.parameters() if parameter.requires_grad)
    return x
