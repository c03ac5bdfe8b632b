"""parametrization: parameters that a module makes (a structure, a quantizer), in models with ties, hooks and copies."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize


def attach(model: nn.Module, path: str, maker: nn.Module) -> None:
    """Let `maker()` make the parameter at `path`, in place and in every module that has this parameter.

    Nothing of the parameter is kept; a frozen one freezes the maker. Errors: AttributeError where `path` is none.
    """
    owner, _, leaf = path.rpartition(".")
    old = getattr(model.get_submodule(owner), leaf)
    if isinstance(old, nn.Parameter) and not old.requires_grad:
        maker.requires_grad_(False)
    for module, name in owners(model, old) or [(model.get_submodule(owner), leaf)]:
        detach_class(module)
        parametrize.register_parametrization(module, name, maker, unsafe=True)


def release(model: nn.Module, maker: nn.Module) -> None:
    """Replace what `maker` makes by a plain parameter of the same values, in place and in every module that has it."""
    learns = any(parameter.requires_grad for parameter in maker.parameters())
    value = nn.Parameter(maker().detach().clone(), requires_grad=learns)
    for module, name in owners(model, maker):
        detach_class(module)
        made: Any = module.parametrizations[name]  # type: ignore[union-attr,index]
        made.original, made.is_tensor = value, True  # torch leaves the original, and there is none yet
        parametrize.remove_parametrizations(module, name, leave_parametrized=False)


def owners(model: nn.Module, thing: Tensor | nn.Module) -> list[tuple[nn.Module, str]]:
    """(module, name) of every place of a parameter, or of a maker: more than one where weights are tied."""
    return [(module, name) for module in model.modules() for name, one in held(module) if one is thing]


def held(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """(name, parameter or its maker) of a module's own parameters."""
    yield from ((name, one) for name, one in module._parameters.items() if one is not None)
    if parametrize.is_parametrized(module):
        yield from ((name, chain[0]) for name, chain in _chains(module) if is_ours(chain))


def is_ours(chain: Any) -> bool:
    """Whether a parametrization keeps nothing of the original, as structures and quantizers do and others do not."""
    return not hasattr(chain, "original") and not hasattr(chain, "original0")


def made_elsewhere(module: nn.Module) -> Iterator[tuple[str, Tensor, str]]:
    """(name, weight, what makes it) of a module's weights that are computed from other parameters.

    By parametrizations of others, or by hooks (torch's old `weight_norm`, `spectral_norm` and pruning, and copies of
    them): then the weight is a plain tensor, and the parameters have its name and an ending.
    """
    if parametrize.is_parametrized(module):
        for name, chain in _chains(module):
            if not is_ours(chain):
                yield name, getattr(module, name), type(chain[0]).__name__.strip("_")
    for name, value in vars(module).items():
        if isinstance(value, Tensor) and _parts(module, name):
            hooks = [hook for hook in module._forward_pre_hooks.values() if getattr(hook, "name", "") == name]
            yield name, value, type(hooks[0]).__name__ if hooks else "a hook"


def inputs_of_hooks(module: nn.Module) -> set[str]:
    """The names of the parameters from which hooks compute the module's weights."""
    return {part for name, value in vars(module).items() if isinstance(value, Tensor) for part in _parts(module, name)}


def _parts(module: nn.Module, name: str) -> list[str]:
    return [part for part in module._parameters if part.startswith(f"{name}_")]


def _chains(module: Any) -> list[tuple[str, Any]]:
    return list(module.parametrizations.items())


def detach_class(module: nn.Module) -> None:
    """Give a parametrized module a class of its own: torch adds a property per parametrization to it, and copies of
    the module have the same class."""
    if parametrize.is_parametrized(module):
        kind = type(module)
        module.__class__ = type(kind.__name__, kind.__bases__, dict(vars(kind)))


def original_class(module: nn.Module) -> type:
    """The class that the module had before torch parametrized it."""
    return type(module).__bases__[0] if parametrize.is_parametrized(module) else type(module)


def copy_model(model: nn.Module) -> nn.Module:
    """A deep copy. Plain tensors that a forward pass left behind (of hooks, in an LSTM) are copied without their graph,
    which torch refuses to copy."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            memo |= {id(tensor): tensor.detach().clone() for tensor in _tensors(value) if tensor.grad_fn is not None}
    return copy.deepcopy(model, memo)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)
