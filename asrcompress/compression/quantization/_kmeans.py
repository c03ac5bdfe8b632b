"""k-means on a line, on sorted values with prefix sums: Lloyd's iteration, and the exact optimum.

The optimum is dynamic programming over the sorted values (Wang and Song, "Ckmeans.1d.dp", R Journal 2011); as the best
split moves right when the end does, each layer is solved by divide and conquer, in O(n log n).
"""

import numpy as np
from numpy.typing import NDArray

from asrcompress.errors import UserError

Values = NDArray[np.float64]
STARTS = ("linear", "density", "random")


def kmeans(values: Values, count: int, start: str = "linear", exact: bool = False, seed: int = 0,
           iterations: int = 100) -> Values:
    """At most `count` centroids, ascending; fewer where fewer values differ.

    `start` is linear (evenly over the range), density (evenly over the quantiles) or random (members: Forgy).
    """
    if start not in STARTS or count < 1:
        raise UserError(f"k-means: start is one of {', '.join(STARTS)}, not '{start}', and the codebook has at least 1 "
                        f"entry, not {count}")
    ordered = np.sort(np.asarray(values, np.float64).ravel())
    distinct = np.unique(ordered)
    if len(distinct) <= count:
        return distinct
    if exact:
        return optimum(ordered, count)
    if start == "linear":
        centroids = np.linspace(ordered[0], ordered[-1], count)
    elif start == "density":
        centroids = np.quantile(ordered, (np.arange(count) + 0.5) / count)
    else:
        centroids = np.sort(np.random.default_rng(seed).choice(distinct, count, replace=False))
    sums, squares = (np.concatenate([[0.0], np.cumsum(x)]) for x in (ordered, ordered**2))
    for _ in range(iterations):
        edges = np.concatenate([[0], np.searchsorted(ordered, (centroids[1:] + centroids[:-1]) / 2), [len(ordered)]])
        sizes, total = np.diff(edges), np.diff(sums[edges])
        moved = total / np.maximum(sizes, 1)
        empty = np.flatnonzero(sizes == 0)  # as pruning leaves a gap around zero: they help the worst clusters
        worst = np.argsort(total * moved - np.diff(squares[edges]), kind="stable")[: len(empty)]
        moved[empty] = ordered[edges[worst + 1] - 1]
        if np.array_equal(moved, centroids):
            break
        centroids = np.sort(moved)
    return np.unique(centroids)


def optimum(ordered: Values, count: int) -> Values:
    """The centroids of least squared error, of sorted values (n,) of which more than `count` differ."""
    shifted = ordered - ordered.mean()  # the differences below are of large sums
    n = len(ordered)
    sums, squares = (np.concatenate([[0.0], np.cumsum(x)]) for x in (shifted, shifted**2))

    def cost(first: NDArray[np.int64], end: NDArray[np.int64]) -> Values:
        """Squared error of the cluster of values first..end-1; 0 where it is empty."""
        size = np.maximum(end - first, 1)
        return np.maximum(squares[end] - squares[first] - (sums[end] - sums[first]) ** 2 / size, 0)

    ends = np.arange(n + 1)
    best = cost(np.zeros(n + 1, np.int64), ends)
    splits = []
    for _ in range(count - 1):
        best, split = _layer(best, cost, n)
        splits.append(split)
    edges = [n]
    for split in reversed(splits):
        edges.append(int(split[edges[-1]]))
    edges = sorted({0, *edges})
    return np.array([ordered[a:b].mean() for a, b in zip(edges[:-1], edges[1:], strict=True)])


def _layer(before: Values, cost, n: int) -> tuple[Values, NDArray[np.int64]]:  # type: ignore[no-untyped-def]
    """min and argmin over m <= i of before[m] + cost(m, i), for every i; all middles of a level at once."""
    best, split = np.empty(n + 1), np.zeros(n + 1, np.int64)
    low, high = np.array([0]), np.array([n])          # ranges of i still to solve
    left, right = np.array([0]), np.array([n])        # between these lie their splits
    while len(low):
        middle = (low + high) // 2
        stop = np.minimum(right, middle)
        sizes = stop - left + 1
        begin = np.cumsum(sizes) - sizes
        tries = np.arange(int(sizes.sum())) - np.repeat(begin - left, sizes)
        totals = before[tries] + cost(tries, np.repeat(middle, sizes))
        least = np.minimum.reduceat(totals, begin)
        where = np.flatnonzero(totals == np.repeat(least, sizes))
        first = where[np.searchsorted(where, begin)]
        best[middle], split[middle] = least, tries[first]
        chosen = tries[first]
        low, high, left, right = (np.concatenate(pair) for pair in (
            (low, middle + 1), (middle - 1, high), (left, chosen), (chosen, right)))
        keep = low <= high
        low, high, left, right = low[keep], high[keep], left[keep], right[keep]
    return best, split
