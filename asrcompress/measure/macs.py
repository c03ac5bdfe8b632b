"""Multiply-adds of a model, counted where they happen: in one forward pass, layer by layer."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

FRAMES_PER_SECOND = 100


def macs(model: nn.Module, *inputs: Tensor) -> int:
    """Multiply-adds of the matrix products and convolutions of `model(*inputs)`.

    Counted are nn.Linear, the convolutions of torch, and compressed layers: a module with a `structure` answers for
    itself through `structure.macs(frames, stride)`, where frames are its output vectors. Biases, normalisation,
    activations and what attention multiplies inside itself are not counted: a TDNN has next to nothing of these.
    """
    total = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += _macs_of(module, output)

    hooks = [module.register_forward_hook(count) for module in _counted(model)]
    training = model.training
    try:
        with torch.inference_mode():
            model.eval()(*inputs)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return total


def macs_per_second(model: nn.Module, seconds: int = 20) -> int:
    """Multiply-adds for one second of audio, from an utterance of `seconds`: its padded ends weigh little."""
    frames = seconds * FRAMES_PER_SECOND
    return round(macs(model, *speech(model, frames)) / seconds)


def speech(model: nn.Module, frames: int) -> tuple[Tensor, Tensor]:
    """x (1, frames, features) and x_lens (1,): random input of the shape that our models take."""
    features = getattr(model, "config", {}).get("features", 80)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, frames, features, generator=generator), torch.tensor([frames])


def _counted(module: nn.Module) -> Iterator[nn.Module]:
    """The modules that count, never one inside another: what `parametrize` hangs below a layer makes its weight."""
    if hasattr(module, "structure") or isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
        yield module
    else:
        for child in module.children():
            yield from _counted(child)


def _macs_of(module: Any, output: Tensor) -> int:
    if hasattr(module, "structure"):
        stride = getattr(module, "stride", 1)
        frames = output.numel() // module.structure.shape[0]
        return int(module.structure.macs(frames, stride if isinstance(stride, int) else stride[0]))
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    return output.numel() * module.weight[0].numel()  # a convolution: each output is a product with one filter
