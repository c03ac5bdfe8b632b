"""pruned: only a fraction of the values is kept; the others are zero, and only their places are stored.

Han, Pool, Tran and Dally, NeurIPS 2015 (magnitude, with retraining); Zhu and Gupta, 2017 (the cubic schedule). Random
masks are the control that the literature keeps.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asrcompress.compression.quantization.base import Encoded, Quantizer
from asrcompress.options import require


def unit_scores(tensor: Tensor, unit: str, block: Sequence[int] = (4, 4)) -> Tensor:
    """The root mean square of each unit, spread over its members: (rows, columns), like `tensor.flatten(1)`.

    A row is an output, a column one input (with its tap), a block `block` neighbouring rows and columns.
    """
    matrix = _matrix(tensor).double().square()
    if unit == "row":
        return matrix.mean(1, keepdim=True).sqrt().expand_as(matrix)
    if unit == "column":
        return matrix.mean(0, keepdim=True).sqrt().expand_as(matrix)
    if unit == "block":
        mean = nn.functional.avg_pool2d(matrix[None], tuple(block), ceil_mode=True)[0]
        mean = mean.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
        return mean[: matrix.shape[0], : matrix.shape[1]].sqrt()
    return matrix.sqrt()


def mask_of(scores: Tensor, density: float, noise: Tensor) -> Tensor:
    """True for the fraction `density` with the highest scores; `noise` decides between equal ones.

    Scores, noise and mask have one shape.
    """
    if not scores.numel():
        return torch.zeros(scores.shape, dtype=torch.bool)
    keep = max(1, round(density * scores.numel()))
    flat, noises = scores.flatten().cpu().numpy(), noise.flatten().cpu().numpy()
    threshold = np.partition(flat, -keep)[-keep]  # a schedule asks 50 times for millions: no sorting
    mask = flat > threshold
    ties = np.flatnonzero(flat == threshold)
    mask[ties[np.argsort(-noises[ties])[: keep - mask.sum()]]] = True
    return torch.from_numpy(mask).reshape(scores.shape)


def one_of_each(matrix: Tensor, unit: str, block: Sequence[int] = (4, 4)) -> Tensor:
    """The first member of each unit of a matrix (rows, columns)."""
    high, wide = _sides(matrix.shape, unit, block)
    return matrix[::high, ::wide]


def spread(ones: Tensor, shape: Sequence[int], unit: str, block: Sequence[int] = (4, 4)) -> Tensor:
    """What `one_of_each` took of a matrix of this shape (rows, columns), for all members of each unit."""
    high, wide = _sides(shape, unit, block)
    return ones.repeat_interleave(high, 0).repeat_interleave(wide, 1)[: shape[0], : shape[1]]


def _matrix(tensor: Tensor) -> Tensor:
    return tensor.flatten(1) if tensor.dim() > 1 else tensor.reshape(1, -1)


def _sides(shape: Sequence[int], unit: str, block: Sequence[int]) -> tuple[int, int]:
    """(rows, columns) of a unit."""
    high, wide = {"row": (1, shape[1]), "column": (shape[0], 1), "block": tuple(block)}.get(unit, (1, 1))
    return max(1, high), max(1, wide)


class Pruned(Quantizer):
    """A tensor times a mask; the mask follows the schedule in training, and holds from then on."""

    @dataclass(frozen=True)
    class Options:
        """`density` is the fraction of the values that is kept, those of highest `score` (random: the control); of
        units, the nearest number of whole ones, at least one.

        `scope` layer: each tensor keeps it; global: one threshold for all, relative to each tensor's RMS. Whole `unit`s
        are kept, a block being `block` neighbouring rows and columns. In `schedule` iterative the density falls in four
        steps, in cubic as d + (1 - d)(1 - t)^3, t the done fraction of the first `until` of the training; one_shot
        prunes at once. `precision` is that of what is kept, in the file.
        """

        density: float = 0.1
        scope: Literal["layer", "global"] = "layer"
        score: Literal["magnitude", "random"] = "magnitude"
        unit: Literal["element", "row", "column", "block"] = "element"
        block: tuple[int, ...] = (4, 4)
        schedule: Literal["one_shot", "iterative", "cubic"] = "one_shot"
        until: float = 0.5
        precision: Literal["float32", "float16"] = "float32"

        def __post_init__(self) -> None:
            for key in ("density", "until"):
                value = getattr(self, key)
                require(0 < value <= 1, f"quantization pruned: {key} is {value:g}; it is above 0 and at most 1")
            require(len(self.block) == 2 and min(self.block) > 0,
                    f"quantization pruned: block is {list(self.block)}; it is two whole numbers above 0")

    name = "pruned"
    options: Options
    mask: Tensor

    def __init__(self, shape: Sequence[int], options: Options, seed: int = 0) -> None:
        super().__init__(shape, options)
        self.seed = seed
        self.weight = nn.Parameter(torch.zeros(self.shape, dtype=torch.float32))
        self.register_buffer("mask", torch.ones(self.shape, dtype=torch.bool))

    @classmethod
    def allocate(cls, tensors: Mapping[str, Tensor], options: Options) -> dict[str, Options]:
        """scope layer: every tensor keeps the same density. global: one threshold for all, each relative to its RMS."""
        if options.scope == "layer":
            return dict.fromkeys(tensors, options)
        scores = {path: unit_scores(t, options.unit, options.block) /
                  (float(t.double().square().mean().sqrt()) or 1.0) for path, t in tensors.items()}
        every = torch.cat([s.flatten() for s in scores.values()])
        threshold = every.kthvalue(max(1, math.ceil((1 - options.density) * every.numel()))).values
        return {path: replace(options, density=max(float((s > threshold).double().mean()), 1 / s.numel()))
                for path, s in scores.items()}

    @classmethod
    @torch.no_grad()
    def fit(cls, tensor: Tensor, options: Options, seed: int = 0) -> "Pruned":
        one = cls(tensor.shape, options, seed)
        one.weight.copy_(tensor)
        one.advance(0.0)
        return one

    @classmethod
    def build(cls, spec: Mapping[str, Any]) -> "Pruned":
        rest = dict(spec)
        seed = rest.pop("seed")
        one: Any = super().build(rest)
        one.seed = seed
        return one

    def spec(self) -> dict[str, Any]:
        return {**super().spec(), "seed": self.seed}

    def density_at(self, progress: float) -> float:
        """The fraction of the values that is kept when this fraction of the training is done."""
        final, t = self.options.density, min(1.0, progress / self.options.until)
        if self.options.schedule == "cubic":
            return final + (1 - final) * (1 - t) ** 3
        if self.options.schedule == "iterative":
            return final ** (min(4, 1 + math.floor(4 * t + 1e-9)) / 4)
        return final

    @torch.no_grad()
    def advance(self, progress: float) -> None:
        """Prune to the density of the schedule, in steps of a hundredth; what is pruned stays so."""
        density = self.density_at(math.floor(100 * progress + 1e-9) / 100)
        unit, block = self.options.unit, self.options.block
        first = partial(one_of_each, unit=unit, block=block)
        now = first(_matrix(self.mask))
        if self.weight.is_meta or max(1, round(density * now.numel())) >= int(now.sum()) > 0:
            return
        kept = self.weight * self.mask
        noise = torch.rand(kept.numel(), generator=torch.Generator().manual_seed(self.seed)).reshape(kept.shape)
        scores = unit_scores(kept, unit, block).cpu()
        if self.options.score == "random":
            scores = unit_scores(noise, unit, block) * (scores > 0)
        mask = mask_of(first(scores), density, first(_matrix(noise)))
        self.mask.copy_(spread(mask, scores.shape, unit, block).reshape(self.shape))

    def tensor(self) -> Tensor:
        kept = torch.where(self.mask, self.weight, 0)
        return kept if self.options.precision == "float32" else kept + (kept.half().float() - kept).detach()

    def parts(self) -> Encoded:
        kept = (self.weight.detach() * self.mask).cpu().numpy().astype(self.options.precision)
        return Encoded({"mask": (kept != 0).astype(np.int64)}, {"kept": kept[kept != 0]})

    @staticmethod
    def decode(encoded: Encoded, shape: Sequence[int]) -> NDArray[np.float32]:
        mask, kept = encoded.integers["mask"].astype(bool), encoded.floats["kept"]
        if mask.sum() != kept.size:
            raise ValueError(f"{kept.size} values for {mask.sum()} places")
        tensor = np.zeros(mask.shape, np.float32)
        tensor[mask] = kept.astype(np.float32)
        return tensor.reshape(shape)
