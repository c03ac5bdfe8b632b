"""functional_hash: every weight is a function of several values of one pool, which hashes of its position pick.

    W_ij = g(a_1, ..., a_U),   a_u = sign_u(i, j) x pool[hash_u(i, j)]

g is `linear`, sum_u c_u a_u, or an `mlp` with one hidden layer of tanh; the layer shares it, trains it with the pool,
and stores nothing else. With U = 1 a linear g is the identity, and this is `hashed`, value by value.

The paper's own definitions of its two extensions could not be read; these are ours, and off by default:
`dual_space`: a_u is multiplied by a value of a second pool, which hashes of its own pick. It has an eighth of the
parameters, and they start at 1.
`multi_hop`: the hashes are chained: hash_(u+1)(i, j) is a permutation of the pool at hash_u(i, j) + shift_(u+1)(i).

As for `hashed`, a trained weight keeps little more than the fraction `size` of its energy. The weight is rebuilt chunk
by chunk, and again so in the backward pass: a training step never holds the U fetched values of all weights.

Shi, Feng and Zhu, "Functional hashing for compressing neural networks", arXiv 1605.06560, 2016.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from asrcompress.compression.structures.base import Structure, dense_std, exact
from asrcompress.compression.structures.fitting import descend, least_squares, normalized
from asrcompress.compression.structures.hashing._fetching import Table, rebuild, summed
from asrcompress.compression.structures.hashing.hashed import balanced_indices, pool_size, uniform_start
from asrcompress.compression.structures.tables import HASH, check_hash, hash_indices, hash_signs
from asrcompress.errors import UserError
from asrcompress.options import require

NEXT, SECOND = 1 << 48, 1 << 62  # how far apart are the seeds of two hashes, and of the two pools
MOST = 64  # hashes and hidden units: a file of a few bytes must not ask for any number of tables


@dataclass(frozen=True)
class FunctionalHashOptions:
    """What g is and what it fetches; the size is always a budget's, or that of the call."""

    hashes: int = 4  # U, values that each weight is made from
    reconstruction: Literal["linear", "mlp"] = "linear"  # mlp: more expressive, several times as long to train
    hidden: int = 4  # hidden units of the mlp
    dual_space: bool = False  # multiply them by values of a second pool
    multi_hop: bool = False  # chain the hashes
    balanced: bool = True  # all values of the pool serve equally many weights
    steps: int = 40  # of the descent that fits what is not linear to a trained weight

    def __post_init__(self) -> None:
        require(min(self.hashes, self.hidden) >= 1 and max(self.hashes, self.hidden) <= MOST,
                f"functional_hash: hashes and hidden are from 1 to {MOST}, not {self.hashes} and {self.hidden}")
        require(self.steps >= 0, f"functional_hash: steps is {self.steps}; it is at least 0")

    def kind(self) -> "Kind":
        """What these options say of every weight."""
        return Kind(self.hashes, self.reconstruction, self.hidden, self.multi_hop, self.balanced)


def mlp(values: Tensor, hidden: Tensor, output: Tensor, scale: float) -> Tensor:
    """(U, n) -> (n,), scale x (v tanh(M a / scale + b) + d) for hidden (H, U + 1) = [M, b], output (H + 1,) = [v, d].

    `scale` is the size of a typical weight, with which the parameters of g are of order 1.
    """
    units = torch.addmm(hidden[:, -1:], hidden[:, :-1] / scale, values).tanh()
    return (output[:-1] * scale) @ units + output[-1] * scale


def dot(values: Tensor, coefficients: Tensor | None = None) -> Tensor:
    """(U, n) -> (n,), sum_u c_u a_u."""
    return values.sum(0) if coefficients is None else coefficients @ values


def mixed(values: Tensor, factors: Tensor, *net: Tensor, g: Callable[..., Tensor]) -> Tensor:
    """g of the values (U, n), each multiplied by its factor (U, n)."""
    return g(values * factors, *net)


class Kind(NamedTuple):
    """What is fetched for a weight, and how that becomes the weight."""

    hashes: int = 4
    reconstruction: str = "linear"
    hidden: int = 4
    multi_hop: bool = False
    balanced: bool = True

    def num_parameters(self) -> int:
        """How many parameters g has."""
        if self.reconstruction == "mlp":
            return (self.hashes + 2) * self.hidden + 1
        return self.hashes if self.hashes > 1 else 0


def hash_rows(shape: Sequence[int], buckets: int, seed: int, kind: Kind) -> Tensor:
    """The bucket of every fetch of every weight, (U, n) int32, the first row being that of `hashed`."""
    count, rows = math.prod(shape), list[Tensor]()
    for own in (seed + u * NEXT for u in range(kind.hashes)):
        if rows and kind.multi_hop:
            shift = hash_indices(own, shape[0], buckets, False).repeat_interleave(count // shape[0])
            rows.append(hash_indices(own + NEXT // 2, buckets, buckets, True)[(rows[-1] + shift) % buckets])
        else:
            make = balanced_indices if kind.balanced else partial(hash_indices, balanced=False)
            rows.append(make(own, count, buckets))
    return torch.stack([row.int() for row in rows])


class FunctionalHash(Structure):
    """A pool of `buckets` values, a second one of `mixing` (0: there is none), and g."""

    name = "functional_hash"
    Options = FunctionalHashOptions
    from_tables = True
    indices: Tensor
    signs: Tensor
    mixing_indices: Tensor | None

    def __init__(self, shape: Sequence[int], buckets: int, mixing: int = 0, seed: int = 0, scale: float = 1.0,
                 hashes: int = 4, reconstruction: Literal["linear", "mlp"] = "linear", hidden: int = 4,
                 multi_hop: bool = False, balanced: bool = True, hash: str = HASH) -> None:
        super().__init__(shape)
        check_hash(hash)
        self.kind, self.seed, self.scale = Kind(hashes, reconstruction, hidden, multi_hop, balanced), seed, scale
        if buckets < 1 or mixing < 0 or min(hashes, hidden) < 1 or max(hashes, hidden) > MOST:
            raise UserError(f"functional_hash of {self.shape} has no pools of {buckets} and {mixing} values, "
                            f"{hashes} hashes and {hidden} hidden units; at most {MOST} of these")
        self.pool = nn.Parameter(torch.zeros(buckets))
        self.mixing = nn.Parameter(torch.ones(mixing)) if mixing else None
        g = []  # the parameters of g
        if self.kind.reconstruction == "mlp":
            g = [torch.zeros(self.kind.hidden, self.kind.hashes + 1), torch.zeros(self.kind.hidden + 1)]
        elif self.kind.num_parameters():
            g = [torch.full((self.kind.hashes,), self.kind.hashes**-0.5)]
        self.net = nn.ParameterList(g)
        signs = [hash_signs(seed + u * NEXT, math.prod(self.shape)).to(torch.int8) for u in range(self.kind.hashes)]
        second = hash_rows(self.shape, mixing, seed + SECOND, self.kind._replace(multi_hop=False)) if mixing else None
        for name, table in (("indices", hash_rows(self.shape, buckets, seed, self.kind)), ("signs", torch.stack(signs)),
                            ("mixing_indices", second)):
            self.register_buffer(name, table, persistent=False)

    @classmethod
    @torch.no_grad()
    def fit(cls, weight: Tensor, options: FunctionalHashOptions, size: float | None = None,
            seed: int = 0) -> "FunctionalHash":
        """Least squares for a sum of fetched values: the pool and the coefficients in turn.

        From there `steps` of descent, unless g is linear and there is no second pool. Errors: those of `pool_size`.
        """
        target, scale = normalized(weight)
        layer = cls._sized(weight.shape, options, size, seed, 1.0).to(target)
        coefficients = target.new_full((options.hashes,), options.hashes**-0.5)
        layer.pool.copy_(layer._best_pool(coefficients, target))
        if options.reconstruction == "linear" and options.hashes > 1:
            layer.net[0].copy_(layer._best_coefficients(target))
            layer.pool.copy_(layer._best_pool(layer.net[0].detach(), target))
        if options.reconstruction == "mlp" or options.dual_space:
            descend(layer, target, options.steps)
        layer.pool.mul_(scale)  # the weight is now multiplied by `scale`, whatever g
        layer.scale = scale
        return layer.to(weight)

    @classmethod
    @torch.no_grad()
    def init(cls, shape: Sequence[int], options: FunctionalHashOptions, size: float | None = None,
             seed: int = 0) -> "FunctionalHash":
        """A uniform pool, and a g that is about the sum of the fetched values over sqrt(U). Errors: as `fit`."""
        std = dense_std(shape)
        layer = cls._sized(shape, options, size, seed, std)
        uniform_start(layer.pool, shape, seed)
        if options.reconstruction == "mlp":
            layer.net[1].mul_(std / layer.dense().std())
        return layer

    @classmethod
    def _sized(cls, shape: Sequence[int], options: FunctionalHashOptions, size: float | None, seed: int,
               scale: float) -> "FunctionalHash":
        """With as many parameters as the size allows, and the g from which both `fit` and `init` start."""
        kind = options.kind()
        total = pool_size(cls.name, shape, size, cls.min_parameters(shape, options)) - kind.num_parameters()
        mixing = max(1, total // 8) if options.dual_space else 0
        layer = cls(shape, total - mixing, mixing, seed, scale, **kind._asdict())
        if kind.reconstruction == "mlp":
            hidden, output = layer.net
            hidden.normal_(0.5, 0.25, generator=torch.Generator().manual_seed(seed)).div_(math.sqrt(kind.hashes))
            hidden[:, -1] = 0
            output[:-1] = 2 / kind.hidden
        return layer

    def _best_pool(self, coefficients: Tensor, target: Tensor) -> Tensor:
        """The least squares one for a weighted sum of what is fetched."""
        return least_squares(lambda pool: summed(self._table(), pool, coefficients), target.flatten(), len(self.pool))

    def _best_coefficients(self, target: Tensor) -> Tensor:
        """The least squares ones (U,) for this pool."""
        values = self._table().fetch(self.pool, slice(0, target.numel()))
        return torch.linalg.pinv(values @ values.T) @ (values @ target.flatten())

    def _table(self) -> Table:
        return Table(self.indices, self.signs)

    @classmethod
    def min_parameters(cls, shape: Sequence[int], options: FunctionalHashOptions) -> int:
        return options.kind().num_parameters() + (2 if options.dual_space else 1)

    def spec(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "buckets": self.pool.numel(),
                "mixing": 0 if self.mixing is None else self.mixing.numel(), "seed": self.seed, "scale": self.scale,
                **self.kind._asdict(), "hash": HASH}

    def dense(self) -> Tensor:
        pool, net = exact(self.pool), [exact(p) for p in self.net]
        g = dot if self.kind.reconstruction == "linear" else partial(mlp, scale=self.scale)
        table = self._table()
        with torch.autocast(pool.device.type, enabled=False):
            if self.mixing is not None and self.mixing_indices is not None:
                second = Table(self.mixing_indices, None)
                weight = rebuild(partial(mixed, g=g), [table, second], [pool, exact(self.mixing)], *net)
            elif self.kind.reconstruction == "linear":
                weight = summed(table, pool, *net or [pool.new_ones(1)])
            else:
                weight = rebuild(g, [table], [pool], *net)
        return weight.view(self.shape).to(self.pool.dtype)
