"""Quantizer: how each number of a tensor is written. Every module of this folder without a leading underscore is one.

    model = apply(model, "int8", include=("*",))   # weights, or the factors, cores and pools of structures
    packed.save("model.packed", model)             # each through its `encode`, then a coder of `bits`

Any tensor can be written in any way: a dense weight, a structure's factor, a pool. A new way is one new file that holds
a subclass of `Quantizer` whose `name` is the file's name, one `conf/values/<name>.yaml`, and one test.
"""

import copy
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from asrcompress import registry
from asrcompress.compression import modules
from asrcompress.compression.quantization.base import Encoded, Quantizer
from asrcompress.compression.structures import check_finite, known
from asrcompress.errors import UserError

__all__ = ["Encoded", "Quantizer", "apply", "attach", "attached", "describe", "family", "fit", "materialize", "names", "restore",
           "tensors"]


def names() -> tuple[str, ...]:
    """Every way of writing numbers there is, sorted, beside plain float32."""
    return registry.names(__name__)


def family(name: str) -> type[Quantizer]:
    """The class of a way of writing numbers."""
    return registry.member(__name__, name, Quantizer, "is no quantization", beside=("float32",))


def fit(name: str, tensor: Tensor, seed: int = 0, **options: Any) -> Quantizer:
    """The member of a family nearest to a trained tensor. Errors: UserError for an unknown name or option."""
    check_finite(tensor)
    cls = family(name)
    return cls.fit(tensor.detach(), seed, **known(cls.fit, f"values {name}", options)).to(tensor.device)


def tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(path, tensor) of every parameter worth writing in another way: what has two dimensions, and structures' pools.

    Biases and the vectors of normalisations are left as they are, as are tensors that are written in some way already.
    """
    from asrcompress.compression.structures import Scaled, Structure

    for owner_path, module in model.named_modules():
        if isinstance(module, Quantizer):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            pool = isinstance(module, Structure) and not isinstance(module, Scaled) and parameter.numel() >= 64
            if (parameter.dim() >= 2 or pool) and not isinstance(module, nn.LayerNorm):
                yield f"{owner_path}.{name}".lstrip("."), parameter


def apply(model: nn.Module, name: str, include: tuple[str, ...] = ("*",), exclude: tuple[str, ...] = (), seed: int = 0,
          **options: Any) -> nn.Module:
    """A copy of the model in which the selected tensors are written as `name`; globs are over the paths of `tensors`.

    Options that need the whole model (one threshold for all layers) are the family's `shares(tensors, **options)`,
    which returns the options of each. Where the model has a `config`, that of the copy says so under `values`.
    """
    small = materialize(copy.deepcopy(model))
    chosen = {path: tensor.detach() for path, tensor in tensors(small)
              if any(fnmatchcase(path, glob) for glob in include) and not any(fnmatchcase(path, g) for g in exclude)}
    if not chosen:
        raise UserError(f"values {name}: no tensor is selected; include {list(include)}, exclude {list(exclude)}; the "
                        f"tensors are {', '.join(path for path, _ in tensors(small)) or 'none'}")
    cls = family(name)
    shares = cls.shares(chosen, **options) if hasattr(cls, "shares") else dict.fromkeys(chosen, options)
    for path, tensor in chosen.items():
        try:
            attach(small, path, fit(name, tensor, seed, **shares[path]))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
    describe(small)
    return small


def attach(model: nn.Module, path: str, quantizer: Quantizer) -> None:
    """Let `quantizer` make the parameter at a path of `tensors`."""
    owner, _, name = path.rpartition(".")
    module = model.get_submodule(owner)
    modules.detach_class(module)
    parametrize.register_parametrization(module, name, quantizer, unsafe=True)


def materialize(model: nn.Module) -> nn.Module:
    """Let every tensor that is written in some way be plain numbers again, those it has; in place."""
    for path in attached(model):
        owner, _, name = path.rpartition(".")
        module: Any = model.get_submodule(owner)
        modules.detach_class(module)
        made = module.parametrizations[name]  # torch leaves the original, and there is none yet
        made.original, made.is_tensor = nn.Parameter(getattr(module, name).detach().clone()), True
        parametrize.remove_parametrizations(module, name, leave_parametrized=False)
    return model


def attached(model: nn.Module) -> dict[str, Quantizer]:
    """Every tensor of a model that is written in some way, by the path that `attach` was given."""
    found = {}
    for path, module in model.named_modules():
        if isinstance(module, Quantizer):  # OWNER.parametrizations.NAME.0
            owner, name, _ = path.rsplit(".", 2)
            found[f"{owner.removesuffix('parametrizations')}{name}"] = module
    return found


def describe(model: nn.Module) -> None:
    """Write how each tensor is made into `model.config`, if any: {path: {"quantization": name, **spec}}."""
    specs = {path: {"quantization": one.name, **one.spec()} for path, one in attached(model).items()}
    if isinstance(config := getattr(model, "config", None), Mapping) and (specs or "values" in config):
        model.config = {**model.config, "quantization": specs}  # type: ignore[assignment,dict-item]


def restore(model: nn.Module, entries: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    """Put what `describe` wrote into a model, in place; the numbers are still to be loaded."""
    for path, entry in entries.items():
        spec = {key: value for key, value in entry.items() if key != "quantization"}
        try:
            attach(model, path, family(entry["quantization"]).build(spec))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"the tensor '{path}' cannot be made as its file says: {error}") from None
    return model
