"""tied: neighbouring blocks share one matrix, and each of their layers adds a part of low rank of its own.

    W_l = S_g + A_l B_l [+ diag(e_l)],    g = l // span

A group is up to `span` neighbouring layers of one shape whose paths differ in the block's number alone: blocks.0.ff1.up
and blocks.1.ff1.up, or layers.2.conv and layers.3.conv, where l counts from the first layer of that shape. A layer
without a partner stays dense. A kernel (out, in, taps) is the matrix (out, in x taps).

The file shrinks, the work does not: S is stored once a group, and W is rebuilt before the product, since products with
A and B for each frame take longer. Trained blocks are as unlike as random matrices, so this is for a training from
scratch (schedule `scratch`), or one that pulls the blocks together before it ties them (schedule `pull`).

Wang and Li, "ResidualTransformer: residual low-rank learning with weight-sharing for Transformer layers", arXiv
2310.02489, 2023.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from asrcompress.compression.structures.base import Allotment, CannotShrink, Structure, dense_std, exact
from asrcompress.compression.structures.fitting import draw, truncated_svd
from asrcompress.compression.structures.pool import PooledStructure
from asrcompress.compression.structures.sharing._groups import Shape, neighbours, own, pays, sides, square, stored
from asrcompress.errors import UserError
from asrcompress.options import require

OWN = 0.1  # variance of A B at the start, relative to S: blocks that start equal would part slowly


@dataclass(frozen=True)
class TiedOptions:
    """Where no budget shares out a size, `rank` says how large a layer's own part is."""

    span: int = 2  # neighbouring blocks that share a matrix
    rank: int | None = None  # 0: blocks are repeated, and only their norms and biases differ
    diagonal: bool = False  # a diagonal of its own for each square matrix
    sweeps: int = 20  # of the alternating fit to given weights

    def __post_init__(self) -> None:
        require(self.span >= 1 and self.sweeps >= 1,
                f"tied: span is {self.span} and sweeps {self.sweeps}; they are at least 1")
        require(self.rank is None or self.rank >= 0, f"tied: rank is {self.rank}; it is at least 0")


class Shared(nn.Module):
    """The matrix of a group, of the shape of its layers' weights."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(*shape))


class Tied(PooledStructure):
    """Layer `member` of a group of `members`: what they share + left (out, rank) x right (rank, in x taps) + diagonal.

    `num_parameters()` is the layer's part of the shared matrix, rounded so that a group adds up, and what is its own.
    """

    name = "tied"
    Options = TiedOptions
    not_after = ("is not for a trained model: its blocks are as unlike as random matrices (each is 0.705 to 0.710 of "
                 "its norm away from its mean with the next block, and unrelated ones are 0.7071); train the model "
                 "with structure=tied and schedule=scratch, or with schedule=pull")

    def __init__(self, shape: Shape, rank: int, members: int = 1, member: int = 0, diagonal: bool = False) -> None:
        super().__init__(shape)
        out, columns = sides(self.shape)
        if not 0 <= rank <= min(out, columns) or not 0 <= member < members or (diagonal and not square(self.shape)):
            raise ValueError(f"a weight {self.shape} cannot have rank {rank}, place {member} of {members}, "
                             f"diagonal {diagonal}")
        self.rank, self.members, self.member = rank, members, member
        self.pool = Shared(self.shape)
        self.left = nn.Parameter(torch.zeros(out, rank)) if rank else None
        self.right = nn.Parameter(torch.zeros(rank, columns)) if rank else None
        self.diagonal = nn.Parameter(torch.zeros(out)) if diagonal else None

    @classmethod
    def fit(cls, weight: Tensor, options: TiedOptions, size: float | None = None, seed: int = 0) -> "Tied":
        """A group of one. Errors: those of `_alone`."""
        return _fitted(_alone(weight.shape, options, size), {"": weight}, options.sweeps)[""]

    @classmethod
    def fit_all(cls, weights: Mapping[str, Tensor], allotments: Mapping[str, Allotment],
                seed: int = 0) -> dict[str, Structure]:
        """The groups nearest to the weights; layers that would not get smaller are left out.

        Errors: those of `groups`, and UserError where weights of a group differ in dtype or device.
        """
        made: dict[str, Structure] = {}
        for group in groups({path: weight.shape for path, weight in weights.items()}, allotments):
            made |= _fitted(group, weights, _options(allotments).sweeps)
        return made

    @classmethod
    def init(cls, shape: Shape, options: TiedOptions, size: float | None = None, seed: int = 0) -> "Tied":
        """A random group of one. Errors: those of `_alone`."""
        return _drawn(_alone(shape, options, size), seed)[""]

    @classmethod
    def init_all(cls, shapes: Mapping[str, Shape], allotments: Mapping[str, Allotment],
                 seed: int = 0) -> dict[str, Structure]:
        """S like the start of a dense layer, A B with a tenth of its variance. Errors: those of `groups`."""
        made: dict[str, Structure] = {}
        for number, group in enumerate(groups(shapes, allotments)):
            made |= _drawn(group, seed + number)
        return made

    @classmethod
    def min_parameters(cls, shape: Shape, options: TiedOptions) -> int:
        """In a whole group, with rank 0."""
        return -(-math.prod(shape) // options.span) + own(shape, 0, options.diagonal)

    def tied_pool(self) -> Shared:
        return self.pool

    def tie_pool(self, pool: nn.Module) -> None:
        if not isinstance(pool, Shared) or pool.weight.shape != self.pool.weight.shape:
            raise UserError("layers of structure tied that share a matrix differ in its shape")
        self.pool = pool

    def spec(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "rank": self.rank, "members": self.members, "member": self.member,
                "diagonal": self.diagonal is not None}

    def dense(self) -> Tensor:
        weight: Tensor = self.pool.weight
        if self.left is not None and self.right is not None:
            weight = torch.addmm(weight.flatten(1), self.left, self.right).view(self.shape)
        if self.diagonal is None:
            return weight
        return weight + torch.eye(len(weight), dtype=weight.dtype, device=weight.device) * self.diagonal

    def num_parameters(self) -> int:
        before, after = (math.prod(self.shape) * end // self.members for end in (self.member, self.member + 1))
        return after - before + sum(parameter.numel() for parameter in self.parameters(recurse=False))


def groups(shapes: Mapping[str, Shape], allotments: Mapping[str, Allotment]) -> list[dict[str, Tied]]:
    """New layers by path, a mapping for each group of `neighbours` that is fewer parameters than dense.

    The options are those of the first allotment. Errors: CannotShrink; UserError where not exactly one of size and rank
    is given, and where no layer gets smaller.
    """
    if not shapes:
        return []
    options = _options(allotments)
    together = neighbours(shapes, options.span)
    rank = _rank(shapes, together, allotments)
    paying = [paths for paths in together if pays(shapes[paths[0]], len(paths), rank, options.diagonal)]
    if not paying:
        raise UserError(f"structure tied makes no layer smaller at span {options.span} and rank {rank}: it is for "
                        "layers of one shape whose paths differ in the block's number alone, as blocks.0.up and "
                        "blocks.1.up; include such layers, lower the rank, or raise the span")
    return [_group(paths, shapes[paths[0]], rank, options.diagonal) for paths in paying]


def _options(allotments: Mapping[str, Allotment]) -> TiedOptions:
    """Those of the first allotment."""
    options: TiedOptions = next(iter(allotments.values())).options
    return options


def _rank(shapes: Mapping[str, Shape], together: Sequence[Sequence[str]], allotments: Mapping[str, Allotment]) -> int:
    """The rank of the options, or the largest with which all layers together store what their sizes allow."""
    options, sizes = _options(allotments), [allotments[path].size for path in shapes]
    parts = [size * math.prod(shape) for size, shape in zip(sizes, shapes.values(), strict=True) if size is not None]
    if len(parts) != (len(sizes) if options.rank is None else 0):
        raise UserError("structure tied needs exactly one of size and rank (with a budget that shares out a size, "
                        "leave rank away)")
    if options.rank is not None:
        return options.rank
    allowed = int(sum(parts) + 1e-6)
    for rank in range(max(min(sides(shape)) for shape in shapes.values()), -1, -1):
        count = sum(stored(shapes[paths[0]], len(paths), rank, options.diagonal) for paths in together)
        if count <= allowed:
            return rank
    raise CannotShrink(f"structure tied cannot store the selected layers in {allowed:,} parameters; at span "
                       f"{options.span} the fewest are {count:,}; raise the span or the size")


def _alone(shape: Shape, options: TiedOptions, size: float | None) -> dict[str, Tied]:
    """A group of one, larger than a dense weight. Errors: CannotShrink for a size; UserError without a rank."""
    if size is not None:
        raise CannotShrink("structure tied gets small by sharing, and one layer alone has none to share with: it can "
                           "reach no size; give all layers of a model to fit_all or init_all")
    if options.rank is None:
        raise UserError("structure tied of one layer alone needs a rank")
    return _group([""], shape, options.rank, options.diagonal)


def _group(paths: Sequence[str], shape: Shape, rank: int, diagonal: bool) -> dict[str, Tied]:
    """New layers that share one matrix."""
    layers = {path: Tied(shape, min(rank, *sides(shape)), len(paths), member, diagonal and square(shape))
              for member, path in enumerate(paths)}
    for layer in layers.values():
        layer.tie_pool(layers[paths[0]].pool)
    return layers


@torch.no_grad()
def _drawn(layers: dict[str, Tied], seed: int) -> dict[str, Tied]:
    """The layers of a group with random values."""
    generator = torch.Generator().manual_seed(seed)
    for layer in layers.values():
        std = dense_std(layer.shape)
        if not layer.member:
            layer.pool.weight.normal_(0, std, generator=generator)
        if layer.left is not None and layer.right is not None:
            own_seed = int(torch.randint(2**40, (), generator=generator))
            draw([layer.left, layer.right], OWN * std**2 / layer.rank, own_seed)
    return layers


@torch.no_grad()
def _fitted(layers: dict[str, Tied], weights: Mapping[str, Tensor], sweeps: int) -> dict[str, Tied]:
    """The layers of a group by alternating least squares: S is the mean of W_l - A_l B_l - diag(e_l), and `_refit`.

    The error never rises. Two layers start from S = W_0: from their mean they would stay mirror images of each other.
    One alone starts from S = 0: factors of zero would get no gradient.
    """
    if len({(weights[path].dtype, weights[path].device) for path in layers}) > 1:
        raise UserError(f"structure tied: {', '.join(layers)} share a matrix, but differ in dtype or device")
    targets = torch.stack([exact(weights[path]).flatten(1) for path in layers])
    shared = targets.mean(0) if len(layers) > 2 else targets[0] * (len(layers) - 1)
    before = math.inf
    for path, layer in layers.items():
        layer.to(weights[path])
    for _ in range(sweeps):
        parts = torch.stack([_refit(layer, target - shared) for layer, target in zip(layers.values(), targets,
                                                                                     strict=True)])
        shared = (targets - parts).mean(0)
        error = float((targets - shared - parts).double().square().sum())
        if error >= (1 - 1e-4) * before:
            break
        before = error
    layer.pool.weight.copy_(shared.view(layer.shape))
    return layers


def _refit(layer: Tied, rest: Tensor) -> Tensor:
    """A B + diag(e), set to A B = SVD_r(rest - diag(e)) and then e = the diagonal of rest - A B."""
    left, right = truncated_svd(rest if layer.diagonal is None else rest - layer.diagonal.diag(), layer.rank)
    made = left @ right
    if layer.left is not None and layer.right is not None:
        layer.left.copy_(left)
        layer.right.copy_(right)
    if layer.diagonal is not None:
        layer.diagonal.copy_((rest - made).diagonal())
        made = made + layer.diagonal.diag()
    return made
