"""calibration: what the layers of a model get to see, as second moments of their inputs.

    moments = collect(model, batches)                              # batches of the arguments of model(...)
    small, report = compress(model, plan, calibration=moments)     # options={"data_aware": True}
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from asrcompress.compression import modules
from asrcompress.errors import UserError

CONVOLUTIONS = nn.Conv1d | modules.StructuredConv1d
LAYERS = nn.Linear | modules.StructuredLinear | CONVOLUTIONS


def unfolded(layer: nn.Module, x: Tensor) -> Tensor:
    """Every input of a Linear or Conv1d as a row, so that its output is rows @ weight.flatten(1).T + bias.

    (..., in) -> (rows, in); (N, in, T) -> (N x T', in x taps), what the taps see at each frame of output, in the order
    (in, taps), with the layer's stride, zero padding and dilation.
    """
    if not isinstance(layer, CONVOLUTIONS):
        return x.reshape(-1, x.shape[-1])
    image = (x if x.dim() == 3 else x[None]).unsqueeze(2)
    options = {"dilation": (1, *layer.dilation), "padding": (0, int(layer.padding[0])), "stride": (1, *layer.stride)}
    return functional.unfold(image, (1, *layer.kernel_size), **options).transpose(1, 2).flatten(0, 1)


class Moments:
    """Sums of x x^T (n, n) in float64 and how many x there were: one pass, and no running average."""

    def __init__(self) -> None:
        self.total: Tensor | float = 0.0
        self.count = 0

    def add(self, rows: Tensor) -> None:
        """Count rows (count, n) in."""
        rows = rows if rows.dtype == torch.float64 else rows.float()
        self.total = self.total + (rows.T @ rows).double()
        self.count += len(rows)

    def mean(self, path: str) -> Tensor:
        """(n, n). Errors: UserError that names the layer at `path` where it is not finite."""
        mean = torch.as_tensor(self.total / max(self.count, 1))
        if not torch.isfinite(mean).all():
            raise UserError(f"{path}: it sees values that are not finite; check the model and the calibration data")
        return mean


def _watch(moments: Moments) -> Callable[..., None]:
    def hook(layer: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        moments.add(unfolded(layer, args[0] if args else options["input"]))

    return hook


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """The model in eval mode; afterwards those of its modules train that did before."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def arguments(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A batch as positional and keyword arguments of the model: a tuple or list, a mapping, or one tensor."""
    if isinstance(batch, Mapping):
        return (), dict(batch)
    return (batch,) if isinstance(batch, Tensor) else tuple(batch), {}


@torch.no_grad()
def watch(model: nn.Module, hooks: Mapping[str, Callable[..., None]], batches: Iterable[Any]) -> None:
    """Run the model over batches in eval mode, each hook(layer, args, options) before its layer; leave it as it was."""
    handles = [model.get_submodule(path).register_forward_pre_hook(hook, with_kwargs=True)
               for path, hook in hooks.items()]
    try:
        with in_eval_mode(model):
            for batch in batches:
                args, keywords = arguments(batch)
                model(*args, **keywords)
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def collect(model: nn.Module, batches: Iterable[Any]) -> dict[str, Tensor]:
    """C = E[x x^T], (n, n) in float64, of the inputs of every Linear and Conv1d, compressed or not, by the path that
    `compress` reports.

    `batches` are the arguments of calls of the model (`arguments`), which runs in eval mode. Zero padding that a layer
    adds or is given counts as frames like any other: batch utterances of similar length. A layer that is never called
    (attention multiplies its packed projections itself) is not in the answer. It takes 8 n^2 bytes a layer.
    """
    paths = [path for path, _, why in modules.weights(model) if not why] + list(modules.structured(model))
    found = {path: model.get_submodule(path) for path in paths if isinstance(modules.module_at(model, path), LAYERS)}
    moments = {path: Moments() for path in found}
    watch(model, {path: _watch(moments[path]) for path in found}, batches)
    return {path: seen.mean(path) for path, seen in moments.items() if seen.count}
