"""The Tucker-2 decomposition of a kernel (out, in, taps), and which ranks are worth their numbers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from asrcompress.compression.structures.low_rank._unfolding import unfold


@contextmanager
def torch_backend() -> Iterator[None]:
    """tensorly computes with torch inside; the backend its user has set, in this thread or any other, stays."""
    import tensorly  # here, as a model that is only loaded needs none of it

    before = tensorly.get_backend()
    tensorly.set_backend("pytorch", local_threadsafe=True)
    try:
        yield
    finally:
        tensorly.set_backend(before, local_threadsafe=True)


def limits(shape: Sequence[int]) -> tuple[int, int]:
    """The ranks of the two unfoldings of a full kernel."""
    out, inputs, taps = shape
    return min(out, inputs * taps), min(inputs, out * taps)


def bases(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """HOSVD: U (out, A) and V (in, B), orthonormal columns by falling singular value; A, B are the `limits`."""
    u, _, vh = torch.linalg.svd(unfold(kernel, "input"), full_matrices=False)
    if kernel.shape[2] > 1:
        _, _, vh = torch.linalg.svd(unfold(kernel, "output"), full_matrices=False)
    return u, vh.T


def tucker2(kernel: Tensor, ranks: Sequence[int], start: tuple[Tensor, Tensor],
            sweeps: int) -> tuple[Tensor, Tensor, Tensor]:
    """HOOI: left (out, a), core (a, b, taps), right (b, in) with kernel ~ left core right.

    `start` are the `bases`. With tail the norm of the singular values that an unfolding drops, the error |W - W'| is at
    least the larger tail, and at most the root of the sum of both squared; no sweep raises it.
    """
    from tensorly.decomposition import partial_tucker

    init = [basis[:, :rank] for basis, rank in zip(start, ranks, strict=True)]
    with torch_backend():
        (core, (u, v)), _ = partial_tucker(kernel, list(ranks), modes=[0, 1], n_iter_max=sweeps, init=init, tol=0)
    return u, core, v.T


class Frontier(NamedTuple):
    """The pairs of ranks worth having: each keeps more than any that costs as little. Every column ascends."""

    numbers: Tensor  # (n,) what is stored
    kept: Tensor  # (n,) squared norm of the truncated HOSVD; its squared error is the weight's squared norm less this
    ranks: Tensor  # (n, 2)

    def within(self, most: float) -> int:
        """The index of the best pair of at most this many numbers, -1 where there is none."""
        return int((self.numbers <= most).sum()) - 1


def frontier(energy: Tensor, shape: Sequence[int], rank_multiple: int = 1) -> Frontier:
    """Tries all pairs. energy: (A, B), the squares of the full HOSVD core summed over taps; shape: the kernel's."""
    out, inputs, taps = shape
    one, two = (_multiples(n, rank_multiple).to(energy.device) for n in energy.shape)
    kept = energy.double().cumsum(0).cumsum(1)[one - 1][:, two - 1]
    a, b = one[:, None], two[None]
    numbers = out * a + taps * a * b + inputs * b
    useful = (a <= taps * b) & (b <= taps * a)  # beyond, a basis holds directions that the core cannot reach
    order = numbers[useful].argsort(stable=True)
    numbers, kept = numbers[useful][order], kept[useful][order]
    ranks = torch.stack(torch.broadcast_tensors(a, b), -1)[useful][order]
    better = torch.cat([kept[:1] >= 0, kept[1:] > kept.cummax(0).values[:-1]])
    return Frontier(numbers[better], kept[better], ranks[better])


def _multiples(limit: int, rank_multiple: int) -> Tensor:
    """The ranks to try: multiples, what is below the first one, and the full rank."""
    ranks = torch.arange(1, limit + 1)
    return ranks[(ranks % rank_multiple == 0) | (ranks < rank_multiple) | (ranks == limit)]


def concave_steps(values: Sequence[float]) -> Tensor:
    """Slopes of the least concave sequence above an ascending one: (n + 1 values,) -> (n,), descending, float64."""
    runs: list[tuple[float, int]] = []  # (rise, steps) of each straight piece so far
    for before, after in zip(values, values[1:], strict=False):
        rise, steps = after - before, 1
        while runs and runs[-1][0] * steps < rise * runs[-1][1]:
            last = runs.pop()
            rise, steps = rise + last[0], steps + last[1]
        runs.append((rise, steps))
    return torch.tensor([rise / steps for rise, steps in runs for _ in range(steps)], dtype=torch.float64)
