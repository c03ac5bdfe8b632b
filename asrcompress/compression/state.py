"""state: what a file holds of a model's tensors, each once, and how they get back into one that was built again."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from asrcompress.compression.parametrization import held, owners
from asrcompress.errors import UserError


def stored(model: nn.Module) -> dict[str, Tensor]:
    """`model.state_dict()`, but once, by its first name, what several modules have.

    Errors: UserError for a module that keeps something in its state that is no tensor.
    """
    state = model.state_dict(keep_vars=True)
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise UserError(f"'{name}' of the model's state is a {type(value).__name__}, which no model file can hold; "
                            "remove the module's extra state")
    return {name: state[name].detach() for name in dict.fromkeys(_firsts(state).values())}


def load_stored(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load what `stored` gave into a model with the same ties, which takes the dtypes of the tensors.

    Errors: RuntimeError where names or shapes differ.
    """
    state = model.state_dict(keep_vars=True)
    firsts = _firsts(state)
    given = {firsts.get(name, name): tensor for name, tensor in tensors.items()}
    for name, tensor in given.items():
        old = state.get(name)
        if old is not None and old.dtype != tensor.dtype and old.is_floating_point() and tensor.is_floating_point():
            old.data = old.data.to(tensor.dtype)
    model.load_state_dict({**given, **{name: given[first] for name, first in firsts.items() if first in given}})


def first_names(model: nn.Module) -> dict[str, str]:
    """Of every name in the model's state the first one that the same tensor has."""
    return _firsts(model.state_dict(keep_vars=True))


def _firsts(state: Mapping[str, Any]) -> dict[str, str]:
    firsts: dict[int, str] = {}
    return {name: firsts.setdefault(id(tensor), name) for name, tensor in state.items()}


def ties(model: nn.Module) -> dict[str, str]:
    """{name: first name} of every parameter (or what makes it) that several modules have under names of their own."""
    firsts: dict[int, str] = {}
    return {name: first for name, thing in _places(model) if (first := firsts.setdefault(id(thing), name)) != name}


def _places(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for path, module in model.named_modules():
        yield from ((f"{path}.{name}".lstrip("."), thing) for name, thing in held(module))


def set_ties(model: nn.Module, wanted: Mapping[str, str]) -> None:
    """Tie the parameters of a dense model as `ties` said of another one, and untie all others; in place.

    Errors: AttributeError where the model has no such parameter.
    """
    for name, first in ties(model).items():
        if wanted.get(name) != first:
            _set(model, name, nn.Parameter(model.get_parameter(name).detach().clone()))
    for name, first in wanted.items():
        if model.get_parameter(name) is not model.get_parameter(first):
            _set(model, name, model.get_parameter(first))


def untie(model: nn.Module, path: str) -> None:
    """Give the module at `path` parameters, and makers of parameters, of its own; in place."""
    module: Any = model.get_submodule(path)
    for name, thing in list(held(module)):
        if len(owners(model, thing)) < 2:
            continue
        if isinstance(thing, Tensor):
            setattr(module, name, nn.Parameter(thing.detach().clone(), requires_grad=thing.requires_grad))
        else:
            module.parametrizations[name][0] = copy.deepcopy(thing)


def _set(model: nn.Module, name: str, parameter: nn.Parameter) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, parameter)


def dtype_of(model: nn.Module) -> torch.dtype | None:
    """The one dtype of the model's floating-point parameters; None where they differ or there are none."""
    from asrcompress.compression.quantization import Quantizer

    inside = tuple(f"{path}." for path, module in model.named_modules() if isinstance(module, Quantizer))
    kinds = {parameter.dtype for name, parameter in model.named_parameters()
             if parameter.is_floating_point() and not name.startswith(inside)}
    return kinds.pop() if len(kinds) == 1 else None
