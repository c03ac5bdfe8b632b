"""Hash tables that are never stored: they come again, bit for bit, from an algorithm, a seed and a count.

They are made from outputs of the generator splitmix64, in 64-bit integer arithmetic that wraps around, so every
platform and version of numpy gives the same. A table and its signs are two streams of one seed. The name in `HASH` goes
into every spec; another way of making tables has to get another name, since old models need this one.

Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
"""

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from asrcompress.errors import UserError

HASH = "splitmix64-1"
WORD, GAMMA = 2**64 - 1, 0x9E3779B97F4A7C15
Words: TypeAlias = npt.NDArray[np.uint64]
Integers: TypeAlias = npt.NDArray[np.int64]
INDICES, SIGNS = 0, 1  # the streams of a seed


def splitmix64(seed: int, count: int) -> Words:
    """The first `count` outputs of the generator, uint64; any integer is a seed, modulo 2^64."""
    z = np.arange(1, count + 1, dtype=np.uint64)
    z *= np.uint64(GAMMA)
    z += np.uint64(seed & WORD)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z ^= z >> np.uint64(shift)
        z *= np.uint64(factor)
    z ^= z >> np.uint64(31)
    return z


def hash_indices(seed: int, count: int, buckets: int, balanced: bool) -> Tensor:
    """The bucket of each entry: (count,) int64 in [0, buckets).

    Balanced: a random permutation of the entries, modulo the buckets, so that loads differ by at most one. Otherwise
    every entry draws its bucket independently, all alike.
    """
    if balanced:
        return torch.as_tensor(balanced_table(seed, count, buckets))
    upper = stream(seed, INDICES, count) >> np.uint64(32)  # as a fraction of 2^32: times the buckets, rounded down
    return torch.as_tensor((upper * np.uint64(buckets) >> np.uint64(32)).astype(np.int64))


def balanced_table(seed: int, count: int, buckets: int) -> Integers:
    """`hash_indices`, balanced, to compute with: torch's device "meta" takes seconds for its first sum."""
    return permutation(seed, count) % buckets


def hash_signs(seed: int, count: int) -> Tensor:
    """The sign of each entry: (count,) float32, +1 or -1, independent of `hash_indices` with the same seed."""
    upper = stream(seed, SIGNS, count) >> np.uint64(63)
    return torch.as_tensor(1 - 2 * upper.astype(np.float32))


def check_hash(algorithm: str) -> None:
    """A UserError where a spec's tables were made in a way that this version does not know."""
    if algorithm != HASH:
        raise UserError(f"the model's hash tables come from '{algorithm}', but this version makes '{HASH}'; "
                        "use the version of asrcompress that wrote the model")


def permutation(seed: int, count: int) -> Integers:
    """Where each of `count` entries goes: a Feistel network on a nearly square table that is just large enough.

    The place of an entry is its row and column. In turn, the row moves by a random amount that depends on the column,
    and the column by one that depends on the row, which is four times a bijection. Entries that leave the first `count`
    places go through it again until they are back. Much faster than sorting hashes.
    Luby and Rackoff, "How to construct pseudorandom permutations from pseudorandom functions", 1988.
    """
    rows = max(1, math.isqrt(count))
    columns = -(-count // rows)
    steps = stream(seed, INDICES, 2 * (rows + columns)) >> np.uint64(1)
    moves = np.split(steps.astype(np.int64), np.cumsum([columns, rows, columns]))
    moves = [move % (columns if turn % 2 else rows) for turn, move in enumerate(moves)]
    places = feistel_round(np.arange(count, dtype=np.int64), moves)
    while len(outside := np.flatnonzero(places >= count)):
        places[outside] = feistel_round(places[outside], moves)
    return places


def feistel_round(places: Integers, moves: Sequence[Integers]) -> Integers:
    """One pass of `permutation` over places (count,): `moves` by column and by row, twice."""
    rows, columns = len(moves[1]), len(moves[0])
    row, column = np.divmod(places, columns)
    for by_column, by_row in (moves[:2], moves[2:]):
        row += by_column[column]
        row -= rows * (row >= rows)
        column += by_row[row]
        column -= columns * (column >= columns)
    return row * columns + column


def stream(seed: int, number: int, count: int) -> Words:
    """The first `count` words of a stream of a seed: INDICES or SIGNS."""
    return splitmix64(int(splitmix64(seed, number + 1)[number]), count)
