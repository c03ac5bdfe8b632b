"""Quantization: how each value of a tensor is represented. Each module here without a leading underscore is one.

    model = apply(model, "int8", include=("*",))   # weights, or the factors, cores and pools of structures
    packed.save("model.packed", model)             # each through its `encode`, then a coder

Any tensor can have any quantization: a dense weight, a structure's factor, a pool. A new one is one new file that holds
a subclass of `Quantizer` whose `name` is the file's name, with its `Options`, one `conf/quantization/<name>.yaml`, and
one test.
"""

import copy
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from asrcompress import options as options_module
from asrcompress import registry
from asrcompress.compression import parametrization
from asrcompress.compression.quantization.base import Encoded, NoOptions, Quantizer
from asrcompress.compression.structures import check_finite
from asrcompress.errors import UserError

__all__ = ["Encoded", "Quantizer", "apply", "apply_config", "attach", "attached", "family", "fit", "materialize",
           "methods", "names", "selected", "specs", "tensors"]
LARGEST = 2.0**120  # sums and products of what is larger may not be finite in float32


def names() -> tuple[str, ...]:
    """Every quantization there is, sorted, beside plain float32."""
    return registry.names(__name__)


def family(name: str) -> type[Quantizer]:
    """The class of a quantization. Errors: UserError for an unknown name."""
    return registry.member(__name__, name, Quantizer, "is no quantization", beside=("float32",))


def methods() -> dict[str, type]:
    """The options dataclass of every quantization by name, float32 (which has none) included."""
    return {"float32": NoOptions, **{name: family(name).Options for name in names()}}


def fit(name: str, tensor: Tensor, seed: int = 0, **options: Any) -> Quantizer:
    """The quantizer whose tensor is nearest to a trained one, of its shape and dtype and on its device.

    Errors: UserError for an unknown name or option, or a tensor that is not finite.
    """
    cls = family(name)
    return _fitted(cls, tensor, options_module.make(cls.Options, options, f"quantization {name}"), seed)


def _fitted(cls: type[Quantizer], tensor: Tensor, options: Any, seed: int) -> Quantizer:
    check_finite(tensor)
    if tensor.numel() and float(tensor.detach().abs().max()) > LARGEST:
        raise UserError(f"a tensor holds {float(tensor.abs().max()):g}, and quantizations reach {LARGEST:g}; rescale "
                        "its layer")
    one = cls.fit(tensor.detach().float(), options, seed).to(tensor.device)
    one.dtype = tensor.dtype
    if not torch.isfinite(one()).all():
        raise UserError(f"quantization {cls.name} goes beyond the largest {tensor.dtype} of a tensor that holds "
                        f"{float(tensor.abs().max()):g}; exclude it, or rescale its layer")
    return one


def tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(path, tensor) of every parameter worth quantizing: what has two dimensions, and structures' pools.

    Biases and the vectors of normalizations are left as they are, as are tensors that are quantized already, and those
    from which others (weight_norm) compute a weight. A tied parameter comes once, by its first path.
    """
    from asrcompress.compression.structures import Scaled, Structure

    seen: set[int] = set()
    for owner_path, module in model.named_modules():
        if isinstance(module, Quantizer | ParametrizationList):  # others' parametrizations keep what they are made from
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen or name in parametrization.inputs_of_hooks(module):
                continue
            seen.add(id(parameter))
            pool = isinstance(module, Structure) and not isinstance(module, Scaled) and parameter.numel() >= 64
            large = (parameter.dim() >= 2 and parameter.numel() > 0) or pool
            if large and parameter.is_floating_point() and not isinstance(module, nn.LayerNorm):
                yield f"{owner_path}.{name}".lstrip("."), parameter


def selected(model: nn.Module, include: tuple[str, ...], exclude: tuple[str, ...]) -> dict[str, Tensor]:
    """Those of `tensors` whose path a glob of `include` matches, and none of `exclude`."""
    return {path: tensor for path, tensor in tensors(model) if any(fnmatchcase(path, glob) for glob in include)
            and not any(fnmatchcase(path, glob) for glob in exclude)}


def apply(model: nn.Module, name: str, include: tuple[str, ...] = ("*",), exclude: tuple[str, ...] = (), seed: int = 0,
          **options: Any) -> nn.Module:
    """A copy of the model in which the selected tensors are quantized; globs are over the paths of `tensors`.

    Options that need the whole model (one threshold for all layers) are shared out by the family's `allocate`. Errors:
    UserError where no tensor is selected, and those of `fit`, with the path.
    """
    cls = family(name)
    chosen_options: Any = options_module.make(cls.Options, options, f"quantization {name}")
    small = materialize(parametrization.copy_model(model))
    chosen = {path: tensor.detach() for path, tensor in selected(small, include, exclude).items()}
    if not chosen:
        raise UserError(f"quantization {name}: no tensor is selected; include {list(include)}, exclude {list(exclude)};"
                        f" the tensors are {', '.join(path for path, _ in tensors(small)) or 'none'}")
    for path, tensor_options in cls.allocate(chosen, chosen_options).items():
        try:
            attach(small, path, _fitted(cls, chosen[path], tensor_options, seed))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
    return small


def attach(model: nn.Module, path: str, quantizer: Quantizer) -> None:
    """Let `quantizer` make the parameter at a path of `tensors`, in place and wherever it is tied."""
    parametrization.attach(model, path, quantizer)
    for module, _ in parametrization.owners(model, quantizer):
        if isinstance(module, nn.RNNBase):
            type(module).__deepcopy__ = _copy_recurrent  # type: ignore[attr-defined]


def _copy_recurrent(module: nn.RNNBase, memo: dict[int, Any]) -> nn.RNNBase:
    """A copy without the weights of the last forward, which torch keeps: they have gradients and are made anew."""
    replica = memo[id(module)] = module.__new__(type(module))
    state = {**vars(module), "_flat_weights": [None] * len(module._flat_weights)}
    vars(replica).update(copy.deepcopy(state, memo))
    return replica


def materialize(model: nn.Module) -> nn.Module:
    """Replace each quantized parameter by its dequantized value, in place."""
    for quantizer in attached(model).values():
        parametrization.release(model, quantizer)
    return model


def attached(model: nn.Module) -> dict[str, Quantizer]:
    """Every quantizer of a model, by the first path of the parameter that it makes."""
    found: dict[str, Quantizer] = {}
    for path, module in model.named_modules():
        for name, maker in parametrization.held(module):
            if isinstance(maker, Quantizer) and maker not in found.values():
                found[f"{path}.{name}".lstrip(".")] = maker
    return found


def specs(model: nn.Module) -> dict[str, dict[str, Any]]:
    """How each quantized tensor is made, plain JSON: {path: {"quantization": name, **spec}}."""
    return {path: {"quantization": one.name, **one.spec()} for path, one in attached(model).items()}


def apply_config(model: nn.Module, entries: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    """Attach to a model what `specs` said, in place; the quantizers' state is still to be loaded.

    Errors: UserError for a tensor that the model lacks or has in another shape, and for a spec that no quantizer can be
    built from.
    """
    for path, entry in entries.items():
        spec = {key: value for key, value in entry.items() if key != "quantization"}
        owner, _, leaf = path.rpartition(".")
        try:
            shape = list(getattr(model.get_submodule(owner), leaf).shape)
            if spec["shape"] != shape:  # before the quantizer takes memory
                raise UserError(f"it has shape {shape}, and its quantizer {spec['shape']}")
            attach(model, path, family(entry["quantization"]).build(spec))
        except (UserError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"the tensor '{path}' cannot be made as its file says: {error}") from None
    return model
