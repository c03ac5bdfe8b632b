"""sensitivity: what a squared error costs in each part of a model, measured: the weights of a budget.

    components = sensitivity.measure(model, loss)              # loss(model) -> float, on held-out data
    weights = sensitivity.weights(components)                  # for Plan(budget_options={"weights": weights})

One group of layers after the other is cut by truncated SVD to a part of its parameters, and the loss taken. A budget
that minimises sum_l w_l e_l^2, e_l the relative error of layer l, then minimises the loss to first order with
w = (loss - loss of the whole model) / sum_l e_l^2 over the group. Equal errors may cost many times as much in one part
as in another.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from asrcompress.compression import modules, quantization, structures
from asrcompress.compression.parametrization import copy_model
from asrcompress.compression.structures.low_rank.svd import Svd, SvdOptions
from asrcompress.options import require

LEAST = 0.05  # the least weight: a loss that does not rise, or falls, is noise


@dataclass(frozen=True)
class Component:
    """A group of layers, its globs parted by commas; how many layers and parameters it has, and what the cut did.

    `saved` counts the parameters that the cut took away; `error` is the root of the mean over the layers of |W - W'|^2
    / |W|^2; `damage` is how much the loss rose.
    """

    name: str
    layers: int
    parameters: int
    saved: int
    error: float
    damage: float

    @property
    def rate(self) -> float:
        """How much the loss rose for each million parameters that were saved."""
        return 1e6 * self.damage / max(1, self.saved)


def measure(model: nn.Module, loss: Callable[[Any], float], size: float = 0.25,
            groups: Sequence[str] = ()) -> list[Component]:
    """What cutting each group to `size` of its parameters costs, most for each parameter first.

    `groups` are globs over layer paths, several of one group parted by commas; by default layers whose paths differ
    only in numbers are a group. Layers that stay dense, have a structure already or cannot get so small are in none.
    `loss` is called with a copy of the model in eval mode, once for each group and once before. Errors: UserError where
    a group has no layer, or the loss is not finite.
    """
    require(0 < size < 1, f"sensitivity: size is {size:g}; it is above 0 and below 1")
    small = quantization.materialize(copy_model(model)).eval()
    for parameter in small.parameters():
        parameter.data = parameter.data.contiguous()  # so that a kernel's weight is a view of it, which can be changed
    found = {path: weight for path, weight, why in modules.weights(small)
             if not why and Svd.min_parameters(weight.shape, SvdOptions()) <= size * weight.numel()}
    grouped = _grouped(list(found), groups)
    before = _finite(loss(small), "the whole model")
    rows = [_cut(small, name, {path: found[path] for path in paths}, loss, size, before)
            for name, paths in grouped.items()]
    return sorted(rows, key=lambda row: -row.rate)


def weights(components: Sequence[Component]) -> dict[str, float]:
    """{glob: weight} of the components, 1 on average over the parameters, and at least `LEAST`."""
    costs = {one: max(one.damage, 0) / max(one.layers * one.error**2, 1e-12) for one in components}
    mean = sum(one.parameters * cost for one, cost in costs.items()) / sum(one.parameters for one in components)
    require(mean > 0, "no part of the model costs anything when it is cut; cut more (a smaller size), or measure on "
            "more data")
    globs = [(glob, max(LEAST, cost / mean)) for one, cost in costs.items() for glob in one.name.split(",")]
    return {glob: float(f"{weight:.3g}") for glob, weight in sorted(globs, key=lambda pair: len(pair[0]))}


def _grouped(paths: Sequence[str], groups: Sequence[str]) -> Mapping[str, list[str]]:
    """{name of a group: paths of its layers}."""
    if not groups:
        stems = [re.sub(r"(?<![^.])\d+(?![^.])", "*", path) for path in paths]
        require(bool(paths), "the model has no layer that could be cut to this size")
        return {stem: [path for path, its in zip(paths, stems, strict=True) if its == stem] for stem in stems}
    found = {name: [path for path in paths if any(fnmatchcase(path, glob) for glob in name.split(","))]
             for name in groups}
    for name, its in found.items():
        require(bool(its), f"no layer is called {name}; the layers are {', '.join(paths)}")
    return found


@torch.no_grad()
def _cut(small: nn.Module, name: str, found: Mapping[str, Tensor], loss: Callable[[Any], float], size: float,
         before: float) -> Component:
    """The component `name`; the weights, which are those of the model, are as before afterwards."""
    kept = {path: weight.clone() for path, weight in found.items()}
    saved, squares = 0, 0.0
    for path, weight in found.items():
        with structures.error_context(path):
            layer = structures.fit("svd", kept[path], size=size)
        saved += weight.numel() - layer.num_parameters()
        squares += structures.relative_error(layer.dense(), kept[path]) ** 2
        weight.copy_(layer.dense())
    damage = _finite(loss(small), f"the model with {name} cut") - before
    for path, weight in found.items():
        weight.copy_(kept[path])
    count = sum(weight.numel() for weight in kept.values())
    return Component(name, len(kept), count, saved, (squares / len(kept)) ** 0.5, damage)


def _finite(value: float, what: str) -> float:
    require(math.isfinite(value), f"the loss of {what} is {value}; check the model and the data")
    return value
