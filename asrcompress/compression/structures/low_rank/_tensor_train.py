"""The mathematics of a tensor train: which factors, which ranks, the decomposition itself, and the way back.

A train is a list of `modes`, one (m, n, taps) per core: how many row factors, column factors and taps the core indexes.
Core k is a tensor (r_(k-1), m, n, taps, r_k), with r_0 = r_d = 1.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

Modes = tuple[tuple[int, int, int], ...]


@lru_cache
def factors(n: int, count: int, least: int = 1) -> tuple[int, ...]:
    """`count` ascending factors of n, or of a little more (padding) where that is clearly more balanced."""
    if count == 1:
        return (max(least, n),)
    tries = [(first, *factors(math.ceil(n / first), count - 1, first))
             for first in range(least, max(least, math.ceil(n ** (1 / count))) + 1)]
    return min(tries, key=lambda f: sum(f) * (math.prod(f) / n) ** 3 * (1.1 if math.prod(f) > n else 1))


def paired(shape: Sequence[int], dims: int) -> Modes:
    """Factors of rows and columns in pairs, so that the cores have similar sizes; the taps go to the first."""
    out, inputs, taps = (*shape, 1)[:3]
    rows, columns = factors(out, dims), factors(inputs, dims)
    pairs = {tuple(zip(m, n, strict=True)) for m in itertools.permutations(rows)
             for n in itertools.permutations(columns)}
    first, *rest = min(sorted(pairs), key=lambda p: sum(m * n * (1 if k else taps) for k, (m, n) in enumerate(p)))
    return ((*first, taps), *((m, n, 1) for m, n in rest))


def separate(shape: Sequence[int]) -> Modes:
    """in | taps | out, or in | out."""
    out, inputs, taps = (*shape, 1)[:3]
    middle: Modes = ((1, 1, taps),) if taps > 1 else ()
    return ((1, inputs, 1), *middle, (out, 1, 1))


def sides(modes: Modes) -> tuple[int, int, int]:
    """(rows, columns, taps) of the padded weight."""
    m, n, taps = zip(*modes, strict=True)
    return math.prod(m), math.prod(n), math.prod(taps)


def stored(modes: Modes, ranks: Sequence[int]) -> int:
    """How many numbers the cores hold."""
    return sum(a * math.prod(mode) * b for a, mode, b in zip((1, *ranks), modes, (*ranks, 1), strict=True))


def useful(modes: Modes, ranks: Sequence[int]) -> list[int]:
    """`ranks`, each at most what the core on its left and the core on its right can tell apart."""
    sizes, ranks = [math.prod(mode) for mode in modes], [1, *ranks, 1]
    for k in range(1, len(sizes)):
        ranks[k] = min(ranks[k], ranks[k - 1] * sizes[k - 1])
    for k in range(len(sizes) - 1, 0, -1):
        ranks[k] = min(ranks[k], ranks[k + 1] * sizes[k])
    return ranks[1:-1]


def raised(modes: Modes, ranks: Sequence[int], budget: float) -> list[int]:
    """`ranks`, each in turn made as large as the budget allows: what rounding left over is used."""
    ranks = list(ranks)
    for k in range(len(ranks)):
        step = stored(modes, [*ranks[:k], ranks[k] + 1, *ranks[k + 1:]]) - stored(modes, ranks)
        more = int(max(0, budget - stored(modes, ranks)) // step)
        ranks = useful(modes, [*ranks[:k], ranks[k] + more, *ranks[k + 1:]])
    return ranks


def even_ranks(modes: Modes, budget: float) -> list[int]:
    """The largest ranks, all the same where they are useful, that store at most `budget` numbers."""
    low, high = 1, math.prod(sides(modes))
    while low < high:
        rank = (low + high + 1) // 2
        fits = stored(modes, useful(modes, [rank] * (len(modes) - 1))) <= budget
        low, high = (rank, high) if fits else (low, rank - 1)
    return raised(modes, useful(modes, [low] * (len(modes) - 1)), budget)


def fitted_ranks(modes: Modes, spectra: Sequence[Tensor], budget: float) -> list[int]:
    """Ranks that store at most `budget` numbers and lose little: from full ranks, again and again the one singular
    direction is dropped that costs least squared error per number saved. `spectra`: squared singular values."""
    sizes, energy = [math.prod(mode) for mode in modes], [s.tolist() for s in spectra]
    ranks = [1, *map(len, energy), 1]
    numbers = stored(modes, ranks[1:-1])
    while numbers > budget and max(ranks) > 1:
        saved = [ranks[k - 1] * sizes[k - 1] + sizes[k] * ranks[k + 1] for k in range(1, len(sizes))]
        k = min((k for k in range(1, len(sizes)) if ranks[k] > 1),
                key=lambda k: energy[k - 1][ranks[k] - 1] / saved[k - 1])
        ranks[k] -= 1
        numbers -= saved[k - 1]
    return raised(modes, useful(modes, ranks[1:-1]), budget)


def arranged(weight: Tensor, modes: Modes) -> Tensor:
    """(out, in[, taps]) -> the padded tensor with one index per core, its value (i_k, j_k, t_k) in row-major order."""
    rows, columns, taps = sides(modes)
    kernel = weight if weight.dim() == 3 else weight.unsqueeze(2)
    padded = kernel.new_zeros(rows, columns, taps)
    padded[: kernel.shape[0], : kernel.shape[1]] = kernel
    d = len(modes)
    split = padded.reshape([mode[axis] for axis in range(3) for mode in modes])
    return split.permute([axis * d + k for k in range(d) for axis in range(3)]).reshape([math.prod(m) for m in modes])


def spectra(tensor: Tensor) -> list[Tensor]:
    """Squared singular values of every unfolding (the first k indices against the rest), descending, float64."""
    found = []
    for k in range(1, tensor.dim()):
        matrix = tensor.reshape(math.prod(tensor.shape[:k]), -1)
        matrix = (matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T).double()
        found.append(torch.linalg.eigvalsh(matrix @ matrix.T).flip(0).clamp_min(0))
    return found


def tt_svd(tensor: Tensor, ranks: Sequence[int] | None = None, error: float = 0.0) -> list[Tensor]:
    """The train of a tensor: cores (r_(k-1), I_k, r_k), by one truncated singular value decomposition per cut.

    `ranks` are upper bounds; without them each cut may lose a Frobenius norm of error |tensor| / sqrt(d - 1), and the
    relative error is at most `error` (Oseledets 2011, algorithm 1). With ranks it is at most sqrt(d - 1) times that of
    the best train of those ranks. The squared error is the sum of what the cuts drop, as what was kept is orthogonal.
    """
    cores, rest, left = [], tensor, 1
    allowed = (error * tensor.double().norm()) ** 2 / max(1, tensor.dim() - 1)
    for k, size in enumerate(tensor.shape[:-1]):
        u, s, vh = torch.linalg.svd(rest.reshape(left * size, -1), full_matrices=False)
        tails = s.double().square().flip(0).cumsum(0)
        rank = min(ranks[k], len(s)) if ranks is not None else max(1, len(s) - int((tails <= allowed).sum()))
        cores.append(u[:, :rank].reshape(left, size, rank))
        rest, left = s[:rank, None] * vh[:rank], rank
    return [*cores, rest.reshape(left, tensor.shape[-1], 1)]


def balance(cores: Sequence[Tensor]) -> list[Tensor]:
    """The same train with cores of equal Frobenius norm: TT-SVD leaves all of the weight's norm in the last one."""
    norms = torch.stack([core.double().norm() for core in cores])
    if not norms.all():
        return list(cores)
    scales = norms.log().mean().exp() / norms
    return [core * scale.to(core) for core, scale in zip(cores, scales, strict=True)]


def multiply_out(cores: Sequence[Tensor]) -> Tensor:
    """Cores (r_(k-1), m, n, taps, r_k) -> the padded weight (rows, columns, taps)."""
    product = cores[0].flatten(0, -2)
    for core in cores[1:]:
        product = (product @ core.flatten(1)).reshape(-1, core.shape[-1])
    d = len(cores)
    split = product.reshape([n for core in cores for n in core.shape[1:4]])
    rows, columns, taps = sides(tuple((core.shape[1], core.shape[2], core.shape[3]) for core in cores))
    return split.permute([3 * k + axis for axis in range(3) for k in range(d)]).reshape(rows, columns, taps)


def rebuild_macs(modes: Modes, ranks: Sequence[int]) -> int:
    """Multiply-adds of `multiply_out`."""
    macs, entries = 0, math.prod(modes[0])
    for mode, before, after in zip(modes[1:], ranks, (*ranks[1:], 1), strict=True):
        entries *= math.prod(mode)
        macs += entries * before * after
    return macs


def sequence(modes: Modes, way: str) -> Sequence[int]:
    """The cores in the order in which they are contracted, from the `first` or from the `last` on."""
    return range(len(modes)) if way == "first" else range(len(modes) - 1, -1, -1)


def tapped(modes: Modes) -> int:
    """The core that has the taps, and so the stride."""
    return max(range(len(modes)), key=lambda k: modes[k][2])


def cost(modes: Modes, ranks: Sequence[int], way: str, frames: int, stride: int = 1) -> tuple[int, int]:
    """(multiply-adds, numbers read and written where cores work on parts of a frame) of `contract`."""
    macs = moved = 0
    done, rest, rate = 1, sides(modes)[1], frames * stride
    for k in sequence(modes, way):
        m, n, taps = modes[k]
        before, after = (1, *ranks)[k], (*ranks, 1)[k]
        rest, rate = rest // n, frames if k == tapped(modes) else rate
        macs += rate * done * rest * before * m * n * taps * after
        moved += rate * done * rest * (n * before + m * after) if done * rest > 1 else 0
        done *= m
    return macs, moved


def contract(cores: Sequence[Tensor], x: Tensor, way: str, step: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
    """(N, columns, *T) -> (N, rows, *T'), core by core; `T` is nothing or frames, on which the taps work.

    Between cores stands (N x the factors outside, rank x factor, the factors inside, *T), in the order of memory, so
    that a core is a product over the second axis, step(k, z, kernel (c_out, c_in, taps)), and nothing is permuted.
    From the first core on, rows done are outside and columns left are inside; from the last on, the reverse.
    """
    modes: Modes = tuple((core.shape[1], core.shape[2], core.shape[3]) for core in cores)
    rows, columns, _ = sides(modes)
    inside, tail, z = columns if way == "first" else 1, x.shape[2:], x
    for k in sequence(modes, way):
        (a, m, n, taps, b), core = cores[k].shape, cores[k]
        if way == "first":
            inside //= n
            kernel = core.permute(1, 4, 0, 2, 3).reshape(m * b, a * n, taps)
        else:
            kernel = core.permute(0, 1, 2, 4, 3).reshape(a * m, n * b, taps)
        z = step(k, z.reshape(-1, kernel.shape[1], inside, *tail), kernel)
        inside *= 1 if way == "first" else m
        tail = z.shape[3:]
    return z.reshape(x.shape[0], rows, *tail)
