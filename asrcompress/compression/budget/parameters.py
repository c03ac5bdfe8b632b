"""budget: how much each layer gets.

Every budget is a function of a `Request` that returns, per path, the options of `structures.fit`, or None for a layer
that had better stay dense. Apart from the structure's own files, as *how much* is another question than *how*.
"""

import heapq
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from asrcompress.compression.structures import Candidate, CannotShrink, Structure, checked_size, error_context, known
from asrcompress.errors import UserError

Allocation = dict[str, dict[str, Any] | None]


@dataclass(frozen=True)
class Request:
    """What a budget decides on: the selected weights, and how many numbers the whole dense model has.

    `moments` of the layers' inputs are for data-aware structures (see `calibration`).
    """

    family: type[Structure]
    weights: Mapping[str, Tensor]
    options: Mapping[str, Any]
    size: float | None
    total: int
    moments: Mapping[str, Tensor] = field(default_factory=dict)

    def options_of(self, path: str) -> dict[str, Any]:
        """The structure's options for one layer, with the moments of its inputs where it asks for data."""
        if self.options.get("data_aware") and self.moments:
            if path not in self.moments:
                raise UserError(f"{path}: calibration saw no input of it (attention multiplies such weights itself); "
                                "exclude the layer, or leave data_aware away")
            return {**self.options, "moments": self.moments[path]}
        return dict(self.options)

    @property
    def others(self) -> int:
        """Numbers of the model outside the selected weights; they stay."""
        return self.total - sum(weight.numel() for weight in self.weights.values())

    def left(self, smallest: int) -> float:
        """Numbers that the selected weights may store; a UserError where not even `smallest` fits."""
        if checked_size(self.size) is None:
            raise UserError("this budget needs a size: give budget.size, the fraction of the dense model to keep")
        left = (self.size or 0) * self.total - self.others
        if left < smallest:
            reach = (smallest + self.others) / self.total + 5e-5
            raise CannotShrink(f"size {self.size:g} cannot be reached with structure {self.family.name}; the smallest "
                               f"is {reach:.4f} of the model; ask for that, include more layers, or lower the "
                               "structure's option 'multiple' if it has one")
        return left


def fixed(request: Request) -> Allocation:
    """Every layer gets what the structure's options say (rank, energy)."""
    return {path: request.options_of(path) for path in request.weights}


def uniform(request: Request, *, keep: float = 0.005) -> Allocation:
    """Every layer keeps the same fraction of its numbers; one that cannot get so small keeps its fewest.

    Layers with less than the share `keep` of the numbers stay dense where the others still fit: they cost nearly
    nothing, and the output layer, which is one of them, forgives little.
    """
    weights, options = request.weights, request.options
    fewest = {path: request.family.min_parameters(weight.shape, **options) for path, weight in weights.items()}
    pinned = {path: min(n, weights[path].numel()) for path, n in fewest.items()}
    left = request.left(sum(pinned.values()))
    all_numbers = sum(weight.numel() for weight in weights.values())
    tiny = {path: weight.numel() for path, weight in weights.items() if weight.numel() < keep * all_numbers}
    if sum({**pinned, **tiny}.values()) <= left:
        fewest, pinned = {**fewest, **tiny}, {**pinned, **tiny}
    share, free = 1.0, {path for path, n in pinned.items() if n < weights[path].numel()}
    while free:
        rest = left - sum(n for path, n in pinned.items() if path not in free)
        share = min(1.0, rest / sum(weights[path].numel() for path in free))
        low = {path for path in free if fewest[path] > share * weights[path].numel()}
        if not low:
            break
        free -= low
    return {path: None if fewest[path] >= weight.numel() or share == 1.0 else
            {**request.options_of(path), "size": max(share, fewest[path] / weight.numel())}
            for path, weight in weights.items()}


def global_greedy(request: Request, *, relative: bool = True) -> Allocation:
    """Merge the steps of all layers (`Structure.rate_distortion`) and take those that remove most squared error per number.

    For svd this keeps the largest singular values of the whole model, by value^2 per number. With `relative` a layer's
    values count relative to its Frobenius norm, since BatchNorm makes the scale of a layer arbitrary. Every layer gets
    its first step; one that takes all its steps goes on to dense where the numbers suffice.
    """
    curves = {}
    for path, weight in request.weights.items():
        with error_context(path):
            curves[path] = request.family.rate_distortion(weight, request.size or 1.0, **request.options_of(path))
    numbers = {path: weight.numel() for path, weight in request.weights.items()}
    taken = {path: min(1, len(curve.gains)) for path, curve in curves.items()}
    spent = sum(curves[path].cost if n else numbers[path] for path, n in taken.items())
    left = request.left(spent) - spent
    queue: list[tuple[float, str, int]] = []

    def offer(path: str) -> None:
        """Queue the next step of a layer: (error removed per number, negated for the heap; path; numbers)."""
        curve, n = curves[path], taken[path]
        scale = curve.energy if relative and curve.energy else 1.0
        if 0 < n < len(curve.gains):
            heapq.heappush(queue, (-float(curve.gains[n]) / curve.cost / scale, path, curve.cost))
        elif n and n == len(curve.gains) and (cost := numbers[path] - n * curve.cost):
            heapq.heappush(queue, (-(curve.energy - float(curve.gains.sum())) / cost / scale, path, cost))

    for path in curves:
        offer(path)
    while queue:
        _, path, cost = heapq.heappop(queue)
        if cost <= left:
            left -= cost
            taken[path] += 1
            offer(path)
    return {path: {**request.options_of(path), **curve.choose(taken[path])}
            if 0 < taken[path] <= len(curve.gains) else None for path, curve in curves.items()}


def alds(request: Request) -> Allocation:
    """Make the largest relative error bound of all layers (`Structure.bounds`) as small as the size allows.

    At a bound every layer takes its cheapest choice that keeps it, so the numbers fall as the bound rises and bisection
    over the bounds of all choices finds the best one. The paper alternates between ranks and groups from random starts;
    this minimises over both at once, exactly. Liebenwein et al., NeurIPS 2021.
    """
    choices: dict[str, list[Candidate]] = {}
    for path, weight in request.weights.items():
        with error_context(path):
            found = request.family.error_bounds(weight, **request.options_of(path))
        choices[path] = [c for c in found if c.num_parameters < weight.numel()] + [Candidate(weight.numel(), 0.0, {})]
    left = request.left(sum(min(choice.num_parameters for choice in ways) for ways in choices.values()))

    def cheapest(bound: float) -> dict[str, Candidate]:
        return {path: min((c for c in ways if c.error <= bound), key=lambda choice: (choice.num_parameters, choice.error))
                for path, ways in choices.items()}

    bounds = sorted({choice.error for ways in choices.values() for choice in ways})
    best = bisect_left(bounds, True, key=lambda bound: sum(c.num_parameters for c in cheapest(bound).values()) <= left)
    return {path: {**request.options_of(path), **choice.options} if choice.options else None
            for path, choice in cheapest(bounds[best]).items()}


BUDGETS: dict[str, Callable[..., Allocation]] = {"fixed": fixed, "uniform": uniform, "global_greedy": global_greedy,
                                           "alds": alds}


def allocate(name: str, request: Request, options: Mapping[str, Any]) -> Allocation:
    """What each layer gets, per path: options of `structures.fit`, or None to stay dense.

    For a family without an order among its numbers (no `curve`), global_greedy is uniform at its defaults.
    """
    if name not in BUDGETS:
        raise UserError(f"there is no budget '{name}'; there are {', '.join(BUDGETS)}")
    if name == "global_greedy" and request.family.rate_distortion.__func__ is Structure.rate_distortion.__func__:  # type: ignore[attr-defined]
        name, options = "uniform", {}
    known(request.family.fit, f"structure {request.family.name}", dict(request.options))
    return BUDGETS[name](request, **known(BUDGETS[name], f"budget {name}", dict(options)))
