"""Budgets of parameters: how much each layer gets, apart from the structures, as *how much* is another question.

Every budget is a function of a `Request` and its options that returns, per path, an `Allotment`, or None for a layer
that had better stay dense.
"""

import heapq
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from asrcompress import options as checks
from asrcompress.compression.budget import weights as layer_weights
from asrcompress.compression.structures import (
    Allotment,
    Candidate,
    CannotShrink,
    RateDistortion,
    Structure,
    checked_size,
    error_context,
    moments_for,
)
from asrcompress.errors import UserError
from asrcompress.options import require

Allocation = dict[str, Allotment | None]


@dataclass(frozen=True)
class UniformOptions:
    """What stays dense."""

    keep: float = 0.005  # layers with less than this fraction of the parameters stay dense, such as the output layer

    def __post_init__(self) -> None:
        require(0 <= self.keep <= 1, f"budget uniform: keep is {self.keep}; it is from 0 to 1")


@dataclass(frozen=True)
class GlobalGreedyOptions:
    """How layers compare."""

    relative: bool = True  # a layer's squared error counts relative to its squared norm; False: as it is
    weights: Mapping[str, float] | str | None = None  # factors on it, by globs over layers, or a file of such

    def __post_init__(self) -> None:
        if isinstance(self.weights, str):
            object.__setattr__(self, "weights", layer_weights.read(self.weights))
        elif self.weights is not None:
            object.__setattr__(self, "weights", layer_weights.checked(self.weights, "budget global_greedy"))


@dataclass(frozen=True)
class AldsOptions:
    """There are none."""


@dataclass(frozen=True)
class Request:
    """What a budget decides on.

    `options` are the family's, for every layer. `size` is the fraction of the whole dense model's parameters, `total`
    of them, that may be stored. `moments` of the layers' inputs are for data-aware options (see `calibration`).
    """

    family: type[Structure]
    weights: Mapping[str, Tensor]
    options: Any
    size: float | None
    total: int
    moments: Mapping[str, Tensor] = field(default_factory=dict)

    def moments_of(self, path: str) -> dict[str, Tensor | None]:
        """The further argument of `rate_distortion` and `error_bounds` for one layer (see `structures.moments_for`).

        Errors: UserError where the options are data-aware and calibration did not see the layer.

        They are (in x taps, in x taps).
        """
        found = moments_for(self.options, self.moments.get(path))
        if found and self.moments and path not in self.moments:
            raise UserError(f"{path}: calibration saw no input of it (attention multiplies such weights itself); "
                            "exclude the layer, or leave data_aware away")
        return found

    @property
    def others(self) -> int:
        """Parameters of the model outside the selected weights; they stay."""
        return self.total - sum(weight.numel() for weight in self.weights.values())

    def left(self, smallest: int) -> float:
        """Parameters that the selected weights may store. Errors: CannotShrink where not even `smallest` fit."""
        if checked_size(self.size) is None:
            raise UserError("a budget needs a size, the fraction of the dense model to keep: give size=0.25, say")
        left = (self.size or 0) * self.total - self.others
        if left < smallest:
            reach = (smallest + self.others) / self.total + 5e-5
            raise CannotShrink(f"size {self.size:g} cannot be reached with structure {self.family.name}; the smallest "
                               f"is {reach:.4f} of the model; ask for that, include more layers, or lower the "
                               "structure's option 'rank_multiple' if it has one")
        return left


def uniform(request: Request, options: UniformOptions = UniformOptions()) -> Allocation:
    """Every layer keeps the same fraction of its parameters; one that cannot get so small keeps its fewest.

    Layers with less than the fraction `keep` of the parameters stay dense where the others still fit: they cost nearly
    nothing, and the output layer, which is one of them, forgives little. Errors: CannotShrink.
    """
    weights = request.weights
    counts = {path: weight.numel() for path, weight in weights.items()}
    fewest = {path: request.family.min_parameters(weight.shape, request.options) for path, weight in weights.items()}
    pinned = {path: min(n, counts[path]) for path, n in fewest.items()}
    left = request.left(sum(pinned.values()))
    tiny = {path: n for path, n in counts.items() if n < options.keep * sum(counts.values())}
    if sum({**pinned, **tiny}.values()) <= left:
        fewest, pinned = {**fewest, **tiny}, {**pinned, **tiny}
    fraction, free = 1.0, {path for path, n in pinned.items() if n < counts[path]}
    while free:
        rest = left - sum(n for path, n in pinned.items() if path not in free)
        fraction = min(1.0, rest / sum(counts[path] for path in free))
        low = {path for path in free if fewest[path] > fraction * counts[path]}
        if not low:
            break
        free -= low
    return {path: None if fewest[path] >= n or fraction == 1.0 else
            Allotment(max(fraction, fewest[path] / n), request.options) for path, n in counts.items()}


def global_greedy(request: Request, options: GlobalGreedyOptions = GlobalGreedyOptions()) -> Allocation:
    """Merge the steps of all layers (`Structure.rate_distortion`); take those that remove most error per parameter.

    For svd this keeps the largest singular values of the whole model, by value^2 per parameter. With `relative` a
    layer's values count relative to its Frobenius norm, since BatchNorm makes the scale of a layer arbitrary; with
    `weights` its error counts so many times (see `budget.weights`). Every layer gets its first step; one that takes all
    its steps goes on to dense where the parameters suffice.
    Errors: CannotShrink; UserError where the family has no order among its parameters, or no layer has a weight.
    """
    assert not isinstance(options.weights, str)
    weights = layer_weights.of_layers(options.weights or {}, request.weights)
    curves: dict[str, RateDistortion] = {}
    for path, weight in request.weights.items():
        seen = request.moments_of(path)
        with error_context(path):
            curves[path] = request.family.rate_distortion(weight, request.options, request.size or 1.0, **seen)
    counts = {path: weight.numel() for path, weight in request.weights.items()}
    taken = {path: min(1, len(curve.gains)) for path, curve in curves.items()}
    spent = sum(curves[path].cost if n else counts[path] for path, n in taken.items())
    left = request.left(spent) - spent
    queue: list[tuple[float, str, int]] = []

    def offer(path: str) -> None:
        """Queue the next step of a layer: (error removed per parameter, negated for the heap; path; parameters)."""
        curve, n = curves[path], taken[path]
        scale = (curve.energy if options.relative and curve.energy else 1.0) / weights[path]
        if 0 < n < len(curve.gains):
            heapq.heappush(queue, (-float(curve.gains[n]) / curve.cost / scale, path, curve.cost))
        elif n and n == len(curve.gains) and (cost := counts[path] - n * curve.cost):
            heapq.heappush(queue, (-(curve.energy - float(curve.gains.sum())) / cost / scale, path, cost))

    for path in curves:
        offer(path)
    while queue:
        _, path, cost = heapq.heappop(queue)
        if cost <= left:
            left -= cost
            taken[path] += 1
            offer(path)
    return {path: Allotment(None, curve.choose(taken[path])) if 0 < taken[path] <= len(curve.gains) else None
            for path, curve in curves.items()}


def alds(request: Request, options: AldsOptions = AldsOptions()) -> Allocation:
    """Make the largest relative error bound of all layers (`Structure.error_bounds`) as small as the size allows.

    At a bound every layer takes its cheapest candidate that keeps it, so the parameters fall as the bound rises and
    bisection over the bounds of all candidates finds the best one. The paper alternates between ranks and groups from
    random starts; this minimises over both at once, exactly. Liebenwein et al., NeurIPS 2021.
    Errors: CannotShrink; UserError where the family has no error bounds.
    """
    candidates: dict[str, list[Candidate]] = {}
    for path, weight in request.weights.items():
        seen = request.moments_of(path)
        with error_context(path):
            found = request.family.error_bounds(weight, request.options, **seen)
        dense = Candidate(weight.numel(), 0.0, None)
        candidates[path] = [c for c in found if c.num_parameters < weight.numel()] + [dense]
    left = request.left(sum(min(c.num_parameters for c in ways) for ways in candidates.values()))

    def cheapest(bound: float) -> dict[str, Candidate]:
        return {path: min((c for c in ways if c.error <= bound), key=lambda c: (c.num_parameters, c.error))
                for path, ways in candidates.items()}

    bounds = sorted({c.error for ways in candidates.values() for c in ways})
    best = bisect_left(bounds, True, key=lambda bound: sum(c.num_parameters for c in cheapest(bound).values()) <= left)
    return {path: Allotment(None, chosen.options) if chosen.options is not None else None
            for path, chosen in cheapest(bounds[best]).items()}


BUDGETS: dict[str, tuple[Callable[..., Allocation], type]] = {
    "uniform": (uniform, UniformOptions), "global_greedy": (global_greedy, GlobalGreedyOptions),
    "alds": (alds, AldsOptions)}


def methods() -> dict[str, type]:
    """Every budget with its options dataclass."""
    return {name: options for name, (_, options) in BUDGETS.items()}


def make_options(name: str, given: Mapping[str, Any]) -> Any:
    """The options dataclass of a budget. Errors: UserError for an unknown name or key, or a wrong value."""
    if name not in BUDGETS:
        raise UserError(f"there is no budget '{name}'; there are {', '.join(BUDGETS)}")
    return checks.make(BUDGETS[name][1], given, f"budget {name}")


def allocate(name: str, request: Request, given: Mapping[str, Any] | None = None) -> Allocation:
    """What each layer gets, per path; None to stay dense. Without a size the structure's options say it, for all alike.

    For a family without an order among its parameters (no `rate_distortion`), global_greedy is uniform at its defaults.
    Structure dense gets nothing, so every layer stays. Errors: UserError for an unknown budget or option; CannotShrink,
    which says the smallest size that can be reached.
    """
    options = make_options(name, given or {})
    for path in request.weights:
        request.moments_of(path)
    if request.family.name == "dense":
        return dict.fromkeys(request.weights)
    if request.size is None:
        return dict.fromkeys(request.weights, Allotment(None, request.options))
    if name == "global_greedy" and not ordered(request.family):
        checks.require(not options.weights, f"structure {request.family.name} has no order among its parameters, so "
                       "weights of layers cannot count; use budget=uniform")
        return uniform(request)
    return BUDGETS[name][0](request, options)


def ordered(family: type[Structure]) -> bool:
    """Whether a family has an order among its parameters: a `rate_distortion` of its own."""
    return family.rate_distortion.__func__ is not Structure.rate_distortion.__func__  # type: ignore[attr-defined]
