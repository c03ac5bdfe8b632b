"""layers: the modules that stand where a dense layer stood, and how they get there in any torch model."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from asrcompress.compression import structures
from asrcompress.compression.structures import Structure
from asrcompress.errors import UserError


class StructuredLinear(nn.Module):
    """`nn.Linear` whose weight is a structure; `weight` rebuilds it, for modules that multiply it themselves."""

    def __init__(self, structure: Structure, bias: Tensor | None = None) -> None:
        super().__init__()
        self.structure = structure
        self.out_features, self.in_features = structure.shape
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    @property
    def weight(self) -> Tensor:
        return self.structure.cached()

    def forward(self, x: Tensor) -> Tensor:
        return self.structure(x, self.bias)

    def macs(self, frames: int) -> int:
        """Multiply-adds for `frames` rows."""
        return self.structure.macs(frames)


class StructuredConv1d(nn.Module):
    """`nn.Conv1d` (zero padding, one group) whose weight is a structure: (N, in, T) or (in, T) -> (N, out, T')."""

    def __init__(self, structure: Structure, bias: Tensor | None = None, stride: int = 1, padding: int = 0,
                 dilation: int = 1) -> None:
        super().__init__()
        self.structure = structure
        self.out_channels, self.in_channels, taps = structure.shape
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self.kernel_size, self.stride, self.padding, self.dilation = (taps,), (stride,), (padding,), (dilation,)

    @property
    def weight(self) -> Tensor:
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
        return ()


OURS = (Structure, StructuredLinear, StructuredConv1d, parametrize.ParametrizationList)
# Look-ups would rebuild a whole table for a few rows; torch's recurrent modules keep copies of their weights.
DENSE_BY_NATURE = (nn.Embedding, nn.EmbeddingBag, nn.RNNBase, nn.LayerNorm)


def weights(model: nn.Module) -> Iterator[tuple[str, Tensor, str]]:
    """(path, weight as (out, in) or (out, in, taps), why it has to stay dense or "") of every weight without structure.

    The path is that of the module where that is going to be replaced (Linear, plain Conv1d), and that of the parameter
    where it is going to be parametrized (attention's packed projections, other convolutions, bare parameters).
    """
    uses: dict[int, int] = {}
    for parameter in (p for _, p in model.named_parameters(remove_duplicate=False)):
        uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    done = "\0"
    for prefix, module in model.named_modules():
        if prefix.startswith(done):
            continue
        if isinstance(module, OURS):
            done = prefix + "."
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dim() < 2 or not parameter.numel() or not parameter.is_floating_point():
                continue
            why = "shared by several layers" if uses[id(parameter)] > 1 else ""
            if isinstance(module, DENSE_BY_NATURE):
                why = f"{type(module).__name__} stays dense"
            path = prefix if prefix and name == "weight" and _replaceable(module) else f"{prefix}.{name}".lstrip(".")
            yield path, parameter.flatten(2) if parameter.dim() > 3 else parameter, why
        for name, maker in _foreign_parametrizations(module):
            if (weight := getattr(module, name)).dim() >= 2:
                weight = weight.flatten(2) if weight.dim() > 3 else weight
                yield f"{prefix}.{name}".lstrip("."), weight, f"{maker} makes it"


def _foreign_parametrizations(module: nn.Module) -> Iterator[tuple[str, str]]:
    """(parameter, what makes it) of the parametrizations that are neither structures nor values: weight_norm's, say."""
    from asrcompress.compression.quantization import Quantizer

    if parametrize.is_parametrized(module):
        for name, chain in module.parametrizations.items():  # type: ignore[union-attr,operator]
            kinds = [type(one) for one in chain]
            if not any(issubclass(kind, StructuredParameter | Quantizer) for kind in kinds):
                yield name, kinds[0].__name__.strip("_")


def _replaceable(module: nn.Module) -> bool:
    if parametrize.is_parametrized(module):
        return False
    if isinstance(module, nn.Conv1d):
        return module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return isinstance(module, nn.Linear)


def replace_layer(model: nn.Module, path: str, structure: Structure) -> None:
    """Let `structure` stand where the dense weight at a path of `weights` stood."""
    parent_path, _, name = path.rpartition(".")
    try:
        parent = model.get_submodule(parent_path)
        old = getattr(parent, name)
    except AttributeError:
        raise UserError(f"the model has no layer '{path}', which its file says is compressed") from None
    shape = tuple(old.shape if isinstance(old, Tensor) else old.weight.shape)
    if structure.shape != (shape if len(shape) < 4 else (*shape[:2], math.prod(shape[2:]))):
        raise UserError(f"layer '{path}' has shape {shape}, but its {structure.name} has {structure.shape}")
    if isinstance(old, Tensor):
        detach_class(parent)
        parametrize.register_parametrization(parent, name, StructuredParameter(structure, shape), unsafe=True)
        return
    new: nn.Module
    if isinstance(old, nn.Conv1d):
        new = StructuredConv1d(structure, old.bias, old.stride[0], int(old.padding[0]), old.dilation[0])
    else:
        new = StructuredLinear(structure, old.bias)
    setattr(parent, name, new.train(old.training))


def detach_class(module: nn.Module) -> None:
    """Let a parametrized module share its class with no copy of it: torch has a property there per parametrization."""
    if parametrize.is_parametrized(module):
        kind = type(module)
        module.__class__ = type(kind.__name__, kind.__bases__, dict(vars(kind)))


def structured(model: nn.Module) -> dict[str, Structure]:
    """Every structure of a model, by the path that `replace_layer` was given."""
    found = {}
    for path, module in model.named_modules():
        if isinstance(module, StructuredLinear | StructuredConv1d):
            found[path] = module.structure
        elif isinstance(module, StructuredParameter):
            owner, name, _ = path.rsplit(".", 2)
            found[f"{owner.removesuffix('parametrizations')}{name}"] = module.structure
    return found


def describe(model: nn.Module, **changes: Any) -> None:
    """Write how each structured layer is made into `model.config`, if any: {path: {"structure": name, **spec}}.

    Every further layer that has the same pool as one before it also says `shares`: that layer's path.
    """
    if isinstance(getattr(model, "config", None), Mapping):
        specs: dict[str, dict[str, Any]] = {}
        firsts: dict[int, str] = {}
        for path, layer in structured(model).items():
            specs[path] = {"structure": layer.name, **layer.spec()}
            one = structures.pooled(layer)
            if one is not None and firsts.setdefault(id(one.tied_pool()), path) != path:
                specs[path]["shares"] = firsts[id(one.tied_pool())]
        model.config = {**model.config, **changes, "layers": specs}  # type: ignore[assignment,dict-item]


def build(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Structure]:
    """The structures that `describe` wrote, by path, sharing what they shared; their numbers are still to be loaded."""
    made: dict[str, Structure] = {}
    for path, entry in entries.items():
        spec = {key: value for key, value in entry.items() if key not in ("structure", "shares")}
        layer = structures.build(entry["structure"], spec)
        if "shares" in entry:
            ours, first = (structures.pooled(one) if one is not None else None for one in (layer, made.get(entry["shares"])))
            if ours is None or first is None:
                raise UserError(f"layer '{path}' is to share the pool of '{entry['shares']}', which has none before it")
            ours.tie_pool(first.tied_pool())
        made[path] = layer
    return made


def restore(model: nn.Module, layers: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    """Put the layers that `describe` wrote into a new dense model, in place; their numbers are still to be loaded."""
    for path, structure in build(layers).items():
        replace_layer(model, path, structure)
    return model
