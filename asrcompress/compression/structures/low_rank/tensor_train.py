"""tensor_train: a weight as a chain of small cores, one per pair of factors of its rows and columns.

With out = m_1 ... m_d and in = n_1 ... n_d (row-major multi-indices, padded where they do not factor),

    W[(i_1 .. i_d), (j_1 .. j_d), t] = G_1[i_1, j_1, t] G_2[i_2, j_2] ... G_d[i_d, j_d],    G_k[i, j] is r_(k-1) x r_k.

`paired` is this TT-matrix, with `dims` pairs of balanced factors; a kernel's taps belong to the first core. `separate`
is the train over the weight's own indices, in | taps | out: for a matrix its singular value decomposition, for a kernel
of Tucker-2's form. Trained weights are nearest to it unless the size is tiny, and it is faster than the dense product.
Paired trains reach far smaller sizes and stand for matrices of full rank: they are for training from scratch.

Oseledets, "Tensor-train decomposition", SIAM J. Scientific Computing 2011; Novikov, Podoprikhin, Osokin and Vetrov,
"Tensorizing neural networks", NIPS 2015; for convolutions Garipov, Podoprikhin, Novikov and Vetrov, "Ultimate
tensorization", 2016. That the taps share a core with the first factors, so that no cut lies between, is ours.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from asrcompress.compression.structures.base import CannotShrink, Structure, dense_std, exact, needs_grad
from asrcompress.compression.structures.low_rank import _tensor_train as train
from asrcompress.convolution import conv1d
from asrcompress.errors import UserError
from asrcompress.options import require

# What a contraction of paired cores costs beside its multiply-adds, counted in multiply-adds of a large product on one
# CPU thread: per value moved between cores, and per core that is called. Reading a dense weight takes as long as two
# frames more, and to put a rebuilt one in order, which training does in every step, REORDERED per value.
MOVED, CALLED, READ, REORDERED = 50, 800_000, 2, 25
NARROW = 32  # products at most so wide are made as one large one
Step = Callable[[int, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class TensorTrainOptions:
    """Where no budget shares out a size, one of `error` and `rank` says how much is kept."""

    error: float | None = None  # relative, in the Frobenius norm; below float32's for float64 weights only
    rank: int | tuple[int, ...] | None = None  # one for all cuts, or one per cut
    modes: Literal["best", "paired", "separate"] = "best"
    dims: int | None = None  # how many pairs, 2 to 4; None: the smallest error
    factors: tuple[tuple[int, ...], ...] | None = None  # of the pairs, instead of dims: [[m_1, ..], [n_1, ..]]

    def __post_init__(self) -> None:
        require(self.error is None or 0 <= self.error < 1, f"tensor_train: error is {self.error}; it is from 0 to 1")
        ranks = (self.rank,) if isinstance(self.rank, int) else self.rank or ()
        require(min(ranks, default=1) >= 1, f"tensor_train: rank is {self.rank}; ranks are at least 1")
        require(self.dims in (None, 2, 3, 4), f"tensor_train: dims is {self.dims}; it is 2, 3 or 4")
        require(self.factors is None or (len(self.factors) == 2 and len(self.factors[0]) == len(self.factors[1]) > 0),
                f"tensor_train: factors is {self.factors}; it is [[m_1, ..], [n_1, ..]], as many of rows as of columns")


class TensorTrain(Structure):
    """W from cores (r_(k-1), m_k, n_k, taps_k, r_k), applied core by core or as one rebuilt weight: what is faster.

    A separate train applied from the first core on costs as many multiply-adds as it has parameters. Paired cores work
    on parts of a frame, many small products between which values move: unless they are tiny, a rebuilt weight is
    faster. How many frames there are decides as well, so `macs(frames)` is that of a call with so many.
    """

    name = "tensor_train"
    Options = TensorTrainOptions

    def __init__(self, shape: Sequence[int], modes: Sequence[Sequence[int]], ranks: Sequence[int]) -> None:
        super().__init__(shape)
        self.modes: train.Modes = tuple((int(m), int(n), int(taps)) for m, n, taps in modes)
        self.ranks = [int(rank) for rank in ranks]
        _check_modes(self.shape, self.modes)
        if len(self.ranks) != len(self.modes) - 1 or min(self.ranks, default=1) < 1:
            raise UserError(f"tensor_train of {len(self.modes)} cores needs one rank of at least 1 between each two, "
                            f"not {self.ranks}")
        ends = zip((1, *self.ranks), self.modes, (*self.ranks, 1), strict=True)
        self.cores = nn.ParameterList([nn.Parameter(torch.zeros(a, *mode, b)) for a, mode, b in ends])

    @classmethod
    @torch.no_grad()
    def fit(cls, weight: Tensor, options: TensorTrainOptions, size: float | None = None,
            seed: int = 0) -> "TensorTrain":
        """Of the trains that the options allow, the one with the least error; for `error`, with the fewest parameters.

        Errors: CannotShrink; UserError unless exactly one of `size`, `error` and `rank` is given, and where the factors
        do not suit the shape.
        """
        if sum(given is not None for given in (size, options.error, options.rank)) != 1:
            raise UserError("structure tensor_train needs exactly one of size, error and rank "
                            "(with a budget that shares out a size, leave error and rank away)")
        target = exact(weight)
        kinds = _kinds(weight.shape, options, size)
        if options.error is not None:
            tries = [(kind, train.tt_svd(train.arranged(target, kind), error=options.error)) for kind in kinds]
            kind, cores = min(tries, key=lambda one: sum(core.numel() for core in one[1]))
        else:
            kind, cores = _nearest(target, kinds, options.rank, None if size is None else size * weight.numel())
        return cls._from_cores(weight, kind, cores)

    @classmethod
    def _from_cores(cls, weight: Tensor, modes: train.Modes, cores: Sequence[Tensor]) -> "TensorTrain":
        layer = cls(weight.shape, modes, [core.shape[-1] for core in cores[:-1]]).to(weight)
        with torch.no_grad():
            for parameter, core in zip(layer.cores, train.balance(cores), strict=True):
                parameter.copy_(core.reshape(parameter.shape))
        return layer

    @classmethod
    @torch.no_grad()
    def init(cls, shape: Sequence[int], options: TensorTrainOptions, size: float | None = None,
             seed: int = 0) -> "TensorTrain":
        """Normal cores of equal norm, scaled so that the weight has exactly the spread of a dense start.

        That is torch's, as of all structures here, 1 / (3 in), where the authors have Glorot's 2 / (in + out).
        Without a weight to compare, `best` is paired with the fewest pairs, which are fastest, that leave every rank at
        least 2, or, where none does, with the most. Errors: as `fit`; `error` needs a trained weight.
        """
        if (size is None) == (options.rank is None) or options.error is not None:
            raise UserError("structure tensor_train from scratch needs exactly one of size and rank, and no error")
        kinds = _kinds(shape, replace(options, modes="paired") if options.modes == "best" else options, size)
        tries = [(kind, _ranks(kind, options.rank) if size is None else train.even_ranks(kind, size * math.prod(shape)))
                 for kind in kinds]
        kind, ranks = next((one for one in tries if min(one[1], default=1) >= 2), tries[-1])
        layer, generator = cls(shape, kind, ranks), torch.Generator().manual_seed(seed)
        cores = train.balance([torch.randn(core.shape, generator=generator) for core in layer.cores])
        norm = math.prod(shape) ** 0.5 * dense_std(shape)
        spread = (norm / layer._cropped(train.multiply_out(cores)).norm()) ** (1 / len(cores))
        for parameter, core in zip(layer.cores, cores, strict=True):
            parameter.copy_(core * spread)
        return layer

    @classmethod
    def min_parameters(cls, shape: Sequence[int], options: TensorTrainOptions) -> int:
        return min(_least(kind) for kind in _kinds(shape, options))

    def spec(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "modes": [list(mode) for mode in self.modes], "ranks": list(self.ranks)}

    def dense(self) -> Tensor:
        return self._cropped(train.multiply_out(list(self.cores)))

    def _cropped(self, padded: Tensor) -> Tensor:
        return padded[: self.shape[0], : self.shape[1]].reshape(self.shape)

    def order(self, frames: int = 1, stride: int = 1, training: bool = False) -> str:
        """The core at which the contraction starts, `first` or `last`, or `rebuild` where a dense product is faster."""
        return _order(self.modes, tuple(self.ranks), math.prod(self.shape), frames, stride, training)

    def macs(self, frames: int, stride: int = 1) -> int:
        """Multiply-adds of the way that `order` chose; a rebuild is made once at inference and not counted."""
        way = self.order(frames, stride)
        if way == "rebuild":
            return super().macs(frames, stride)
        return train.cost(self.modes, self.ranks, way, frames, stride)[0]

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        way = self.order(math.prod(x.shape[:-1]), training=needs_grad(self.cores))
        if way == "rebuild":
            return super().forward(x, bias)
        y = self._contract(x.reshape(-1, x.shape[-1]), way, _multiply).reshape(*x.shape[:-1], -1)
        return y if bias is None else y + bias

    def conv1d(self, x: Tensor, stride: int = 1, padding: int = 0, dilation: int = 1,
               bias: Tensor | None = None) -> Tensor:
        tapped, reach = train.tapped(self.modes), dilation * (self.shape[-1] - 1)
        frames = x.shape[0] * ((x.shape[2] + 2 * padding - reach - 1) // stride + 1)
        way = self.order(frames, stride, needs_grad(self.cores))
        if way == "rebuild":
            return super().conv1d(x, stride, padding, dilation, bias)

        def step(k: int, z: Tensor, kernel: Tensor) -> Tensor:
            s, p, d = (stride, padding, dilation) if k == tapped else (1, 0, 1)
            if z.shape[2] == 1:
                return conv1d(z[:, :, 0], kernel, None, s, p, d).unsqueeze(2)
            return functional.conv2d(z, kernel.unsqueeze(2), None, (1, s), (0, p), (1, d))

        y = self._contract(x, way, step)
        return y if bias is None else y + bias[:, None]

    def _contract(self, x: Tensor, way: str, step: Step) -> Tensor:
        columns = train.sides(self.modes)[1]
        if columns > x.shape[1]:
            x = functional.pad(x, [0, 0] * (x.dim() - 2) + [0, columns - x.shape[1]])
        return train.contract(list(self.cores), x, way, step)[:, : self.shape[0]]

    @torch.no_grad()
    def scale_rows(self, scale: Tensor) -> bool:
        if self.modes[-1][0] < self.shape[0]:
            return False
        self.cores[-1][:, : len(scale)].mul_(scale.view(-1, 1, 1, 1))
        return True


@lru_cache(4096)
def _order(modes: train.Modes, ranks: tuple[int, ...], dense: int, frames: int, stride: int, training: bool) -> str:
    costs = []
    for way in ("first", "last"):
        macs, moved = train.cost(modes, ranks, way, frames, stride)
        costs.append((macs + MOVED * moved + (CALLED * len(modes) if moved else 0), way, moved))
    cost, way, moved = min(costs)
    rebuild = train.rebuild_macs(modes, ranks) + REORDERED * dense if training else 0
    return way if cost < rebuild + dense * (frames + (READ if moved else 0)) else "rebuild"


def _multiply(k: int, z: Tensor, kernel: Tensor) -> Tensor:
    """(B, c_in, inside) -> (B, c_out, inside). Many narrow products are slower than one large one of a copy."""
    if z.shape[2] > NARROW:
        return kernel[:, :, 0] @ z
    return functional.linear(z.transpose(1, 2), kernel[:, :, 0]).transpose(1, 2)


def _nearest(weight: Tensor, kinds: Sequence[train.Modes], rank: int | Sequence[int] | None,
             budget: float | None) -> tuple[train.Modes, list[Tensor]]:
    """The train with the least error of those within the budget (of these ranks). What one unfolding alone loses is a
    lower bound of a train's error, and saves the decomposition of those that cannot win."""
    energy = float(weight.double().square().sum())
    tries = []
    for kind in kinds:
        tensor = train.arranged(weight, kind)
        spectra = train.spectra(tensor)
        ranks = _ranks(kind, rank) if budget is None else train.fitted_ranks(kind, spectra, budget)
        lost = [float(s[r:].sum()) for s, r in zip(spectra, ranks, strict=True)]
        wasteful = budget is None and train.stored(kind, ranks) >= weight.numel()
        tries.append((wasteful, sum(lost), max(lost, default=0.0), ranks, kind, tensor))
    best: tuple[float, train.Modes, list[Tensor]] | None = None
    for wasteful, _, least, ranks, kind, tensor in sorted(tries, key=lambda one: one[:2]):
        if best is None or (least < best[0] and not wasteful):
            cores = train.tt_svd(tensor, ranks)
            # each cut drops something orthogonal to what is kept, so the error is what the norm has lost
            error = max(0.0, energy - float(cores[-1].double().square().sum()))
            best = (error, kind, cores) if best is None or error < best[0] else best
    assert best is not None
    return best[1:]


def _kinds(shape: Sequence[int], options: TensorTrainOptions, size: float | None = None) -> list[train.Modes]:
    """The modes to try, of those that reach the size."""
    if options.factors is not None:
        kinds = [_explicit(shape, options.factors)]
    else:
        pairs = [train.paired(shape, d) for d in ([options.dims] if options.dims else range(2, 5))]
        kinds = [train.separate(shape)] * (options.modes != "paired") + pairs * (options.modes != "separate")
    reached = [kind for kind in kinds if size is None or _least(kind) <= size * math.prod(shape) + 1e-9]
    if not reached:
        least = min(_least(kind) for kind in kinds) / math.prod(shape)
        raise CannotShrink(f"structure tensor_train of a weight {tuple(shape)} cannot reach size {size:g}; "
                           f"the smallest is {least:.2g}, at rank 1")
    return reached


def _explicit(shape: Sequence[int], factors: Sequence[Sequence[int]]) -> train.Modes:
    taps = (*shape, 1)[2]
    kind = tuple((int(m), int(n), 1 if k else taps) for k, (m, n) in enumerate(zip(*factors, strict=True)))
    _check_modes(shape, kind)
    return kind


def _check_modes(shape: Sequence[int], modes: train.Modes) -> None:
    rows, columns, taps = train.sides(modes)
    tapped = sum(mode[2] > 1 for mode in modes)
    if min(map(min, modes)) < 1 or rows < shape[0] or columns < shape[1] or taps != (*shape, 1)[2] or tapped > 1:
        raise UserError(f"tensor_train: a weight {tuple(shape)} does not fit the factors {list(map(list, modes))} "
                        "(rows, columns, taps of each core); the products must be as large, and one core hold all taps")


def _ranks(kind: train.Modes, rank: int | Sequence[int] | None) -> list[int]:
    cuts = len(kind) - 1
    ranks = [rank] * cuts if isinstance(rank, int) else list(rank or ())
    if len(ranks) != cuts or min(ranks, default=1) < 1:
        raise UserError(f"tensor_train of {cuts + 1} cores needs a rank of at least 1, or {cuts} of them, not {rank}")
    return train.useful(kind, ranks)


def _least(kind: train.Modes) -> int:
    return train.stored(kind, [1] * (len(kind) - 1))
