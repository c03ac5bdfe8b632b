"""choices: every way to store one weight that a byte budget chooses from, its bytes as a coder writes them, its damage.

A way is a structure at a size and a quantization of its parameters. It is a description: `make` finds the same numbers
again, so that thousands of ways take no memory.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from asrcompress.compression import modules, quantization, structures
from asrcompress.compression.damage import SecondOrder
from asrcompress.compression.packed import coding
from asrcompress.compression.quantization import Quantizer
from asrcompress.compression.structures import CannotShrink, PooledStructure, Structure
from asrcompress.errors import UserError
from asrcompress.options import require

BITS = (1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0)
GRID: dict[str, tuple[dict[str, Any], ...]] = {  # of each quantization: what is tried
    "float32": ({},), "float16": ({},), "int8": ({},), "int4": ({}, {"group": 32}),
    "codebook": tuple({"entries": entries} for entries in (4, 8, 16, 32)),
    "trellis": tuple({"bits": bits} for bits in (0.5, 0.75, *BITS)), "epr": tuple({"bits": bits} for bits in BITS)}


@dataclass(frozen=True)
class Ways:
    """What a byte budget may choose from. Errors: UserError for an unknown name or a size that is none."""

    structures: tuple[str, ...] = ("dense", "svd")
    sizes: tuple[float, ...] = (0.7, 0.5, 0.35, 0.25, 0.18, 0.125, 0.09, 0.06, 0.04)  # of structures other than dense
    quantizations: tuple[str, ...] = ("float16", "int8", "int4", "codebook", "trellis")

    def __post_init__(self) -> None:
        require(bool(self.structures and self.quantizations), "a byte budget needs a structure and a quantization")
        for name in self.structures:
            structures.check_trained(name)
            require(not issubclass(structures.family(name), PooledStructure),
                    f"structure {name} has one pool for all layers, so that no layer can choose it alone")
        for name in self.quantizations:
            require(name in GRID, f"a byte budget chooses from the quantizations {', '.join(GRID)}, not '{name}'")
        for size in self.sizes:
            require(0 < size < 1, f"sizes has {size:g}; a size is above 0 and below 1")


@dataclass(frozen=True)
class Way:
    """`size` is None where the structure stays what it is in the model: dense, or what was compressed before."""

    structure: str
    size: float | None
    quantization: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def said(self) -> str:
        """The options of the quantization."""
        return " ".join(f"{key}={value:g}" for key, value in self.options.items())

    def __str__(self) -> str:
        size = "" if self.size is None else f" {self.size:g}"
        return f"{self.structure}{size} x {self.quantization} {self.said}".strip()


@dataclass(frozen=True)
class Part:
    """A weight of the model with ways to choose from: `path` is one of `modules.weights` or `modules.structured`."""

    path: str
    weight: Tensor                     # (out, in) or (out, in, taps)
    structure: Structure | None = None  # what it was compressed to before
    fixed: str = ""                    # why it can have no structure


def parts(model: nn.Module) -> dict[str, Part]:
    """Every weight of a model that a byte budget decides on, by path. Pools that layers share are not among them."""
    large = dict(quantization.tensors(model))
    found = {path: Part(path, weight.detach(), fixed=why) for path, weight, why in modules.weights(model)
             if parameter_of(model, path) in large}
    for path, structure in modules.structured(model).items():
        if structures.pooled(structure) is None:
            found[path] = Part(path, structure.dense().detach(), structure, "it has a structure")
    return found


def parameter_of(model: nn.Module, path: str) -> str:
    """The path of the parameter of a dense weight at a path of `modules.weights`."""
    return path if modules.module_at(model, path) is None else f"{path}.weight"


def ways(part: Part, options: Ways) -> Iterator[Way]:
    """Every way that its shape allows."""
    kept = [("dense" if part.structure is None else part.structure.name, None)]
    small = [(structure, size) for structure in options.structures if structure != "dense" for size in options.sizes]
    chosen = kept if part.fixed else [*(kept if "dense" in options.structures else []), *small]
    for structure, size in chosen:
        for name in options.quantizations:
            yield from (Way(structure, size, name, given) for given in GRID[name])


class Maker:
    """Finds the numbers of ways. Structures are for the inputs and outputs that calibration saw."""

    def __init__(self, form: SecondOrder, seed: int = 0) -> None:
        self.form, self.seed = form, seed
        self._last: tuple[Any, Structure | None] = (None, None)

    def structure(self, part: Part, way: Way) -> Structure | None:
        """The structure of a way, None where it cannot get so small or is not smaller than the weight."""
        key = part.path, way.structure, way.size
        if self._last[0] != key:
            self._last = key, self._fitted(part, way)
        return self._last[1]

    def _fitted(self, part: Part, way: Way) -> Structure | None:
        if way.size is None:
            return structures.fit("dense", part.weight) if part.structure is None else copy.deepcopy(part.structure)
        gains, moments = self.form.gains.get(part.path), self.form.moments.get(part.path)
        aware = moments is not None and hasattr(structures.family(way.structure).Options, "data_aware")
        weighted = gains is not None and len(gains) == len(part.weight)
        scale = gains.sqrt() if weighted else torch.ones(len(part.weight))  # type: ignore[union-attr]
        scale = scale.to(part.weight.device)
        weight = part.weight * scale.view(-1, *[1] * (part.weight.dim() - 1))
        try:
            layer = structures.fit(way.structure, weight, way.size, self.seed, moments,
                                   **({"data_aware": True} if aware else {}))
        except CannotShrink:
            return None
        if weighted and not layer.scale_rows(1 / scale):
            layer = structures.fit(way.structure, part.weight, way.size, self.seed)
        layer = layer.to(part.weight.dtype)  # the scale is float32, and with it the structure of a weight in bfloat16
        return layer if layer.num_parameters() < part.weight.numel() else None

    def make(self, part: Part, way: Way) -> tuple[Structure, dict[str, Quantizer]] | None:
        """A structure with its parameters quantized, and the quantizers by name; None where there is no such way."""
        layer = self.structure(part, way)
        if layer is None:
            return None
        if way.quantization == "float32":
            return layer, {}
        made = quantization.apply(layer, way.quantization, seed=self.seed, **way.options)
        assert isinstance(made, Structure)
        return made, quantization.attached(made)

    @torch.no_grad()
    def measure(self, part: Part, way: Way) -> tuple[int, Tensor] | None:
        """(bytes, change of the weight) of a way; None where there is no such way, or numbers that it cannot hold."""
        try:
            made = self.make(part, way)
        except UserError:
            return None
        if made is None:
            return None
        layer, quantizers = made
        plain = sum(4 * one.numel() for one in layer.parameters()) if not quantizers else 0
        size = plain + sum(len(coding.encode(one, "range", {})[1]) for one in quantizers.values())
        return size, layer.dense().detach() - part.weight
