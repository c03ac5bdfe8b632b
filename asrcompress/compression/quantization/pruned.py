"""pruned: only a share of the numbers is kept, the others are zero and their places are all that is stored of them.

Han, Pool, Tran and Dally, NeurIPS 2015 (magnitude, with retraining); Zhu and Gupta, 2017 (the cubic schedule). Random
masks are the control that the literature keeps.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asrcompress.compression.quantization.base import Encoded, Quantizer
from asrcompress.errors import UserError

OFFERED = {"score": ("magnitude", "random"), "unit": ("element", "row", "column", "block"),
           "schedule": ("one_shot", "iterative", "cubic"), "precision": ("float32", "float16")}


def unit_scores(tensor: Tensor, unit: str, block: Sequence[int] = (4, 4)) -> Tensor:
    """The root mean square of each unit, spread over its members: (rows, columns), like `tensor.flatten(1)`.

    A row is an output, a column one input (with its tap), a block `block` neighbouring rows and columns.
    """
    matrix = (tensor.flatten(1) if tensor.dim() > 1 else tensor[None]).double().square()
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
    """True for the share `density` of the highest scores; `noise` decides between equal ones."""
    if not scores.numel():
        return torch.zeros(scores.shape, dtype=torch.bool)
    keep = max(1, round(density * scores.numel()))
    flat, noises = scores.flatten().cpu().numpy(), noise.flatten().cpu().numpy()
    threshold = np.partition(flat, -keep)[-keep]  # a schedule asks 50 times for millions: no sorting
    mask = flat > threshold
    ties = np.flatnonzero(flat == threshold)
    mask[ties[np.argsort(-noises[ties])[: keep - mask.sum()]]] = True
    return torch.from_numpy(mask).reshape(scores.shape)


class Pruned(Quantizer):
    """A tensor times a mask; the mask follows the schedule in training, and holds from then on.

    In `schedule` iterative the density falls in four steps, in cubic as d + (1 - d)(1 - t)^3, t the share of the first
    `until` of the training; one_shot prunes at once.
    """

    name = "pruned"
    mask: Tensor

    def __init__(self, shape: Sequence[int], density: float = 0.1, score: str = "magnitude", unit: str = "element",
                 block: Sequence[int] = (4, 4), schedule: str = "one_shot", until: float = 0.5,
                 precision: str = "float32", seed: int = 0) -> None:
        super().__init__(shape)
        self.options: dict[str, Any] = {"density": density, "score": score, "unit": unit, "block": list(block),
                                        "schedule": schedule, "until": until, "precision": precision, "seed": seed}
        for option, offered in OFFERED.items():
            if self.options[option] not in offered:
                raise UserError(f"values pruned: {option} is one of {', '.join(offered)}, not '{self.options[option]}'")
        if not 0 < density <= 1 or not 0 < until <= 1 or len(block) != 2 or min(block) < 1:
            raise UserError(f"values pruned: density {density:g} and until {until:g} are above 0, at most 1, and block "
                            f"{list(block)} is two counts")
        self.numbers = nn.Parameter(torch.zeros(self.shape))
        self.register_buffer("mask", torch.ones(self.shape, dtype=torch.bool))

    @classmethod
    def shares(cls, tensors: Mapping[str, Tensor], *, scope: str = "layer", density: float = 0.1,
               **options: Any) -> dict[str, dict[str, Any]]:
        """scope layer: every tensor keeps the same density. global: one threshold for all, each relative to its RMS."""
        if scope not in ("layer", "global"):
            raise UserError(f"values pruned: scope is layer or global, not '{scope}'")
        shares = dict.fromkeys(tensors, density)
        if scope == "global" and 0 < density <= 1:
            scores = {path: unit_scores(t, options.get("unit", "element"), options.get("block", (4, 4))) /
                      t.double().square().mean().sqrt().clamp_min(1e-30) for path, t in tensors.items()}
            every = torch.cat([s.flatten() for s in scores.values()])
            threshold = every.kthvalue(max(1, math.ceil((1 - density) * every.numel()))).values
            shares = {path: max(float((s > threshold).double().mean()), 1 / s.numel()) for path, s in scores.items()}
        return {path: {**options, "density": share} for path, share in shares.items()}

    @classmethod
    @torch.no_grad()
    def fit(cls, tensor: Tensor, seed: int = 0, *, density: float = 0.1, score: str = "magnitude",
            unit: str = "element", block: Sequence[int] = (4, 4), schedule: str = "one_shot", until: float = 0.5,
            precision: str = "float32") -> "Pruned":
        one = cls(tensor.shape, density, score, unit, block, schedule, until, precision, seed)
        one.numbers.copy_(tensor)
        one.advance(0.0)
        return one

    def density_at(self, progress: float) -> float:
        """The share of numbers kept when this share of the training is done."""
        final, t = self.options["density"], min(1.0, progress / self.options["until"])
        if self.options["schedule"] == "cubic":
            return final + (1 - final) * (1 - t) ** 3
        if self.options["schedule"] == "iterative":
            return final ** (min(4, 1 + math.floor(4 * t + 1e-9)) / 4)
        return final

    @torch.no_grad()
    def advance(self, progress: float) -> None:
        """Prune to the density of the schedule, in steps of a hundredth; what is pruned stays so."""
        density = self.density_at(math.floor(100 * progress + 1e-9) / 100)
        if self.numbers.is_meta or round(density * self.numbers.numel()) >= int(self.mask.sum()) > 0:
            return
        kept = self.numbers * self.mask
        noise = torch.rand(kept.numel(), generator=torch.Generator().manual_seed(self.options["seed"]))
        unit, block = self.options["unit"], self.options["block"]
        scores = unit_scores(kept, unit, block).cpu()
        if self.options["score"] == "random":
            scores = unit_scores(noise.reshape(kept.shape), unit, block) * (scores > 0)
        self.mask.copy_(mask_of(scores, density, noise).reshape(self.shape))

    def tensor(self) -> Tensor:
        kept = self.numbers * self.mask
        return kept if self.options["precision"] == "float32" else kept + (kept.half().float() - kept).detach()

    def encode(self) -> Encoded:
        kept = (self.numbers.detach() * self.mask).cpu().numpy().astype(self.options["precision"])
        return Encoded({"mask": (kept != 0).astype(np.int64)}, {"kept": kept[kept != 0]})

    @staticmethod
    def decode(encoded: Encoded, shape: Sequence[int]) -> NDArray[np.float32]:
        mask, kept = encoded.integers["mask"].astype(bool), encoded.floats["kept"]
        if mask.sum() != kept.size:
            raise ValueError(f"{kept.size} numbers for {mask.sum()} places")
        tensor = np.zeros(mask.shape, np.float32)
        tensor[mask] = kept.astype(np.float32)
        return tensor.reshape(shape)

    def spec(self) -> dict[str, Any]:
        return {**super().spec(), **self.options}
