"""smoothing: channels of a layer's inputs that are much larger than the others, made smaller for 8-bit inputs.

    model = smoothing.smooth(model, batches)     # before weights are quantized and `activations.observe` is called

One scale serves all channels of an input (`activations`), so a few large channels leave few steps for the rest. Channel
j of the input is divided by s_j and column j of the weights that read it multiplied: the same output up to rounding.

    s_j = max|X_j|^a / max|W_j|^(1 - a)

The division goes into the gain and bias of the LayerNorm before the layers, or the rows of the linear map before them.
Xiao et al., "SmoothQuant: accurate and efficient post-training quantization for large language models", ICML 2023.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from asrcompress.compression import activations, calibration, scaling, state
from asrcompress.compression.parametrization import copy_model
from asrcompress.errors import UserError
from asrcompress.options import require


def smooth(model: nn.Module, batches: Iterable[Any], strength: float = 0.5) -> nn.Module:
    """A copy of the model with the same outputs, whose layers see inputs of more even channels.

    Where, `model.layernorm_pairs()` and `model.channel_pairs()` say; `batches` are the arguments of calls of the model;
    `strength` is a, from 0 to 1. Layers whose weights are quantized, or a structure without columns that could be
    scaled, are left as they are. Errors: UserError where nothing is left to smooth, with the reason.
    """
    require(0 <= strength <= 1, f"smoothing: strength is {strength:g}; it is from 0 to 1")
    smoothed = activations.remove(copy_model(model))
    places, reasons = _places(smoothed)
    if not places:
        why = reasons[0] if reasons else "it does not say what reads its norms, or they were folded"
        raise UserError(f"no layer of this model can be smoothed ({why}); give a model file before quantization")
    largest = {readers[0]: _Largest() for _, readers in places}
    calibration.watch(smoothed, largest, batches)
    for source, readers in places:
        if (seen := largest[readers[0]].seen) is not None:
            _move(smoothed, source, readers, seen, strength)
    return smoothed


def _places(model: Any) -> tuple[list[tuple[str, tuple[str, ...]]], list[str]]:
    """What can be smoothed, (path of what is divided, paths of what is multiplied), and why other layers cannot.

    Rows come before columns: the latter are scaled for the weights that are there then.
    """
    pairs = [(source, (reader,)) for source, reader in getattr(model, "channel_pairs", tuple)()]
    places, reasons = [], []
    for source, readers in (*pairs, *getattr(model, "layernorm_pairs", tuple)()):
        layers = readers if isinstance(model.get_submodule(source), nn.LayerNorm) else (source, *readers)
        fixed = [f"{path}: {why}" for path in layers if (why := scaling.why_fixed(model.get_submodule(path)))]
        reasons += fixed
        if not fixed:
            places.append((source, tuple(readers)))
    return places, reasons


class _Largest:
    """The hook of a layer: the largest absolute value of every channel of its inputs, (in,)."""

    seen: Tensor | None = None

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        x = (args[0] if args else options["input"]).detach().abs().flatten(0, -2).amax(0)
        self.seen = x if self.seen is None else torch.maximum(self.seen, x)


@torch.no_grad()
def _move(model: nn.Module, source: str, readers: Sequence[str], seen: Tensor, strength: float) -> None:
    for path in (source, *readers):
        state.untie(model, path)
    layers: list[Any] = [model.get_submodule(path) for path in readers]
    weights = torch.stack([layer.weight.abs().amax(0) for layer in layers]).amax(0)
    used = (seen > 0) & (weights > 0)
    scale = torch.where(used, seen**strength / weights ** (1 - strength), 1)
    before: Any = model.get_submodule(source)
    if isinstance(before, nn.LayerNorm):
        before.weight.div_(scale)
    else:
        scaling.scale_rows(before, 1 / scale)
    if before.bias is not None:
        before.bias.div_(scale)
    for layer in layers:
        scaling.scale_columns(layer, scale)
