"""Small models that the compression tests share."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from asrcompress.compression import modules, structures


class Net(nn.Module):
    """Two convolutions and a depthwise one, each before a BatchNorm with used statistics, and a Linear output."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = dict(config)
        width, folded = int(config["width"]), bool(config.get("folded"))
        shapes = ((16, width, 3, 1), (width, width, 3, 1), (width, width, 5, width))
        self.convs = nn.ModuleList(nn.Conv1d(i, o, k, padding=k // 2, groups=g, bias=folded) for i, o, k, g in shapes)
        self.norms = nn.ModuleList(nn.Identity() if folded else nn.BatchNorm1d(width) for _ in shapes)
        self.output = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 16, T) -> (N, T, 10)."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x)).relu()
        return self.output(x.transpose(1, 2))

    def batchnorm_pairs(self) -> Iterator[tuple[str, str]]:
        yield from ((f"convs.{i}", f"norms.{i}") for i in range(3) if isinstance(self.norms[i], nn.BatchNorm1d))


def net(width: int = 32) -> Net:
    torch.manual_seed(0)
    model = Net({"width": width})
    for norm in model.norms:
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return model.eval()


class Normed(nn.Module):
    """LayerNorms that linear maps alone read, and one that a residual reads too; config `folded` leaves out gains."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = dict(config)
        affine = not config.get("folded")
        self.first, self.second = (nn.LayerNorm(16, elementwise_affine=affine) for _ in range(2))
        self.left, self.right, self.up, self.down = (nn.Linear(a, b, bias) for a, b, bias in (
            (16, 16, True), (16, 16, not affine), (16, 32, True), (32, 16, True)))
        self.last, self.output = nn.LayerNorm(16), nn.Linear(16, 6)

    def forward(self, x: Tensor) -> Tensor:
        """(..., 16) -> (..., 6)."""
        y = self.first(x)
        x = x + self.left(y).tanh() * self.right(y)
        x = self.last(x + self.down(self.up(self.second(x)).relu()))
        return self.output(x) + x[..., :6]

    def layernorm_pairs(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        pairs = {"first": ("left", "right"), "second": ("up",)}
        yield from ((norm, its) for norm, its in pairs.items() if self.get_submodule(norm).elementwise_affine)

    def channel_pairs(self) -> Iterator[tuple[str, str]]:
        yield "up", "down"


def normed() -> Normed:
    torch.manual_seed(0)
    model = Normed({})
    for norm in (model.first, model.second, model.last):
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
    return model.eval()


def tied(model: nn.Module, **options: int | bool) -> nn.Module:
    """The model with random layers of structure tied but for the output, as schedule=scratch puts them in."""
    shapes = {path: w.shape for path, w, why in modules.weights(model) if not why and path != "output"}
    given = dict.fromkeys(shapes, structures.Allotment(None, structures.make_options("tied", options)))
    for path, layer in structures.init_all("tied", shapes, given).items():
        modules.replace_layer(model, path, layer)
    return model


class Odd(nn.Module):
    """A layer that is called by keyword, and one that is not called."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(input=x)


def classifier(width: int = 96) -> nn.Module:
    """Of 40 features into 20 log-posteriors, of which some are near 1."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 20),
                          nn.LogSoftmax(-1))
    with torch.no_grad():
        for layer in (model[0], model[2], model[4]):
            layer.weight.mul_(2)
    return model


def seen_batches() -> list[torch.Tensor]:
    """What `classifier` is calibrated on: features of different sizes."""
    torch.manual_seed(1)
    return [torch.randn(200, 40) @ torch.diag(torch.linspace(0.1, 2, 40)) for _ in range(2)]
