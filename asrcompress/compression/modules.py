"""modules: what stands where a dense layer stood, which weights a model has, and how structures get into it."""

import math
from collections.abc import Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

from asrcompress import convolution
from asrcompress.compression.parametrization import (
    attach,
    copy_model,
    detach_class,
    held,
    inputs_of_hooks,
    made_elsewhere,
)
from asrcompress.compression.structures import Structure
from asrcompress.errors import UserError

__all__ = ["StructuredConv1d", "StructuredLinear", "StructuredParameter", "constants", "copy_model", "dense_at",
           "detach_class", "elsewhere", "holder", "module_at", "replace_layer", "structured", "weight_at", "weights"]


class StructuredLinear(nn.Module):
    """`nn.Linear` whose weight is a structure: (..., in) -> (..., out)."""

    def __init__(self, structure: Structure, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.structure, self.bias = structure, bias
        self.out_features, self.in_features = structure.shape

    @property
    def weight(self) -> Tensor:
        """The dense weight, (out, in) or (out, in, taps), made anew where gradients go to its structure."""
        return self.structure.cached()

    def forward(self, x: Tensor) -> Tensor:
        return self.structure(x, self.bias)

    def macs(self, frames: int) -> int:
        """Multiply-adds for `frames` rows."""
        return self.structure.macs(frames)


class StructuredConv1d(nn.Module):
    """`nn.Conv1d` (zero padding, one group) whose weight is a structure: (N, in, T) or (in, T) -> (N, out, T')."""

    def __init__(self, structure: Structure, bias: nn.Parameter | None = None, stride: int = 1, padding: int = 0,
                 dilation: int = 1) -> None:
        super().__init__()
        self.structure, self.bias = structure, bias
        self.out_channels, self.in_channels, taps = structure.shape
        self.kernel_size, self.stride, self.padding, self.dilation = (taps,), (stride,), (padding,), (dilation,)

    @property
    def weight(self) -> Tensor:
        """The dense weight, (out, in) or (out, in, taps), made anew where gradients go to its structure."""
        return self.structure.cached()

    def forward(self, x: Tensor) -> Tensor:
        y = self.structure.conv1d(x if x.dim() == 3 else x[None], self.stride[0], self.padding[0], self.dilation[0],
                                  bias=self.bias)
        return y if x.dim() == 3 else y[0]

    def macs(self, frames: int) -> int:
        """Multiply-adds for `frames` frames of output."""
        return self.structure.macs(frames, self.stride[0])


class StructuredParameter(nn.Module):
    """The parametrization that makes any parameter from a structure; nothing of the dense one is kept."""

    def __init__(self, structure: Structure, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.structure, self.full_shape = structure, shape

    def forward(self) -> Tensor:
        return self.structure.cached().reshape(self.full_shape)

    def right_inverse(self, weight: Tensor) -> tuple[()]:
        """Nothing is kept of the weight, of any shape."""
        return ()


# Exactly these classes are replaced. A subclass may compute something else: its weight is parametrized instead.
REPLACEABLE = (nn.Linear, nn.Conv1d, convolution.Conv1d)
OURS = (Structure, StructuredLinear, StructuredConv1d, nn.utils.parametrize.ParametrizationList)
# Look-ups would rebuild a whole table for a few rows; torch's recurrent modules keep copies of their weights.
DENSE_BY_NATURE = (nn.Embedding, nn.EmbeddingBag, nn.RNNBase, nn.LayerNorm)
REGISTERED = ("_modules", "_parameters", "_buffers")
HOOKS = ("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
         "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks", "_is_full_backward_hook")


def weights(model: nn.Module) -> Iterator[tuple[str, Tensor, str]]:
    """(path, weight as (out, in) or (out, in, taps), why it has to stay dense or "") of every weight without structure.

    The path is that of the module where that is going to be replaced (Linear and plain Conv1d, no subclass), and that
    of the parameter where it is going to be parametrized (everything else). A tied weight comes once.
    """
    places, fixed = _places(model), elsewhere(model)
    seen: set[int] = set()
    for prefix, module in _outside_ours(model):
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dim() < 2 or not parameter.numel() or not parameter.is_floating_point():
                continue
            if id(parameter) in seen or name in inputs_of_hooks(module):
                continue
            seen.add(id(parameter))
            holders = places[id(parameter)]
            alone = (len(holders) == 1 and prefix and name == "weight" and _replaceable(module)
                     and id(module) not in fixed)
            reasons = [f"{said} stays dense" for holder in holders if (said := _dense_by_nature(holder))]
            yield (prefix if alone else f"{prefix}.{name}".lstrip("."), _flat(parameter),
                   reasons[0] if reasons else "")
        for name, weight, maker in made_elsewhere(module):
            if weight.dim() >= 2:
                yield f"{prefix}.{name}".lstrip("."), _flat(weight), f"{maker} makes it"


def _dense_by_nature(module: nn.Module) -> str:
    """What a module is whose weights no structure can make smaller; nothing for any other."""
    if isinstance(module, DENSE_BY_NATURE):
        return type(module).__name__
    depthwise = isinstance(module, nn.modules.conv._ConvNd) and module.groups > 1 and module.weight.shape[1] == 1
    return "a depthwise convolution" if depthwise else ""  # a channel sees itself alone: its kernel is of rank 1


def _outside_ours(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The named modules that are no part of a structure or a parametrization."""
    done = "\0"
    for prefix, module in model.named_modules():
        if prefix.startswith(done):
            continue
        if isinstance(module, OURS):
            done = prefix + "."
            continue
        yield prefix, module


def _places(model: nn.Module) -> dict[int, list[nn.Module]]:
    """Of every parameter, by id, the modules that have it; one that the model has under two names comes twice."""
    found: dict[int, list[nn.Module]] = {}
    for _, module in model.named_modules(remove_duplicate=False):
        for parameter in module._parameters.values():
            found.setdefault(id(parameter), []).append(module)
    return found


def elsewhere(model: nn.Module) -> set[int]:
    """The ids of modules that the model also has in a list, a dict or an object of its own: what is put in their place
    would not be there, so that their weights are parametrized."""
    found, seen = set[int](), set[int]()
    left = [value for module in model.modules() for name, value in vars(module).items() if name not in REGISTERED]
    while left:
        one = left.pop()
        if isinstance(one, nn.Module):
            found.add(id(one))
        elif id(one) not in seen and not isinstance(one, Tensor | type | FunctionType | ModuleType):
            seen.add(id(one))
            if isinstance(one, dict):
                left += one.values()
            elif isinstance(one, list | tuple | set | frozenset):
                left += one
            elif isinstance(one, MethodType):
                left.append(one.__self__)
            elif hasattr(one, "__dict__"):
                left += vars(one).values()
    return found


def constants(model: nn.Module) -> dict[str, Tensor]:
    """The buffers, of any shape, that no file holds because the model's constructor makes them, such as rotary
    frequencies, by name.

    Those of structures and quantizers, which compute with them in any dtype, are not among them.
    """
    return {f"{prefix}.{name}".lstrip("."): buffer for prefix, module in _outside_ours(model)
            for name, buffer in module.named_buffers(recurse=False) if name in module._non_persistent_buffers_set}


def _flat(weight: Tensor) -> Tensor:
    return weight.flatten(2) if weight.dim() > 3 else weight


def _replaceable(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv1d) and (module.groups != 1 or module.padding_mode != "zeros" or
                                          isinstance(module.padding, str)):
        return False
    return type(module) in REPLACEABLE


def replace_layer(model: nn.Module, path: str, structure: Structure) -> None:
    """Let `structure` stand where the dense weight at a path of `weights` stood, in place.

    The layer's bias, hooks and mode stay; the structure of a frozen weight is frozen. Errors: UserError where the model
    has no such layer, or one of another shape or class.
    """
    old = dense_at(model, path, structure.name, structure.shape)
    if isinstance(old, Tensor):
        attach(model, path, StructuredParameter(structure, tuple(old.shape)))
        return
    if not _replaceable(old):
        raise UserError(f"layer '{path}' is a {type(old).__name__}, not the plain layer that its file says was there")
    if not old.weight.requires_grad:
        structure.requires_grad_(False)
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, _replacement(old, structure))


def dense_at(model: nn.Module, path: str, name: str, shape: Any) -> Any:
    """The layer, or the bare parameter, at a path of `weights`, for which there is a structure of this name and shape.

    Errors: UserError where the model has none, or one of another shape.
    """
    parent, _, leaf = path.rpartition(".")
    try:
        old: Any = getattr(model.get_submodule(parent), leaf)
        found = tuple((old if isinstance(old, Tensor) else old.weight).shape)
    except AttributeError:
        raise UserError(f"the model has no layer '{path}', which its file says is compressed") from None
    shape = tuple(shape) if isinstance(shape, list | tuple) else shape
    if shape != (found if len(found) < 4 else (*found[:2], math.prod(found[2:]))):
        raise UserError(f"layer '{path}' has shape {found}, but its {name} has {shape}")
    return old


def _replacement(old: Any, structure: Structure) -> nn.Module:
    new: nn.Module
    bias: Any = old.bias
    if isinstance(old, nn.Conv1d):
        new = StructuredConv1d(structure, bias, old.stride[0], int(old.padding[0]), old.dilation[0])
    else:
        new = StructuredLinear(structure, bias)
    for key in HOOKS:
        setattr(new, key, getattr(old, key))
    return new.train(old.training)


def structured(model: nn.Module) -> dict[str, Structure]:
    """Every structure of a model, by the path that `replace_layer` was given."""
    found: dict[str, Structure] = {}
    seen: set[int] = set()
    for path, module in model.named_modules():
        if isinstance(module, StructuredLinear | StructuredConv1d):
            found[path] = module.structure
        for name, maker in held(module):
            if isinstance(maker, StructuredParameter) and id(maker) not in seen:
                seen.add(id(maker))
                found[f"{path}.{name}".lstrip(".")] = maker.structure
    return found


def module_at(model: nn.Module, path: str) -> nn.Module | None:
    """The module at a path of `weights` or `structured`; None where that is a bare parameter."""
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


def holder(model: nn.Module, path: str) -> nn.Module:
    """What has, as `structure`, the structure at a path of `structured`: the layer, or the parametrization."""
    if (layer := module_at(model, path)) is not None:
        return layer
    owner, _, name = path.rpartition(".")
    maker: nn.Module = dict(held(model.get_submodule(owner)))[name]
    return maker


def weight_at(model: nn.Module, path: str) -> Tensor:
    """The weight (out, in) or (out, in, taps) at a path of `weights`, compressed or not."""
    owner, _, name = path.rpartition(".")
    found = getattr(model.get_submodule(owner), name)
    return _flat(found if isinstance(found, Tensor) else found.weight)
