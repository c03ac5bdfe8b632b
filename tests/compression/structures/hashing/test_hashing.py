"""Against published outputs of splitmix64, a second implementation in Python's own integers, and golden values."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from asrcompress.compression import structures
from asrcompress.compression.structures.tables import HASH, check_hash, hash_indices, hash_signs, splitmix64
from asrcompress.errors import UserError

GOLDEN_BALANCED = [1, 1, 3, 1, 3, 0, 2, 2, 0, 4, 4, 0]
GOLDEN_PLAIN = [1, 4, 0, 3, 1, 3, 3, 1, 0, 1, 3, 4]
GOLDEN_SIGNS = [1, 1, 1, -1, 1, -1, 1, 1, -1, 1, 1, 1]


def generator(seed: int) -> Iterator[int]:
    """The textbook's splitmix64, one number at a time."""
    while True:
        seed = z = (seed + 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        yield z ^ (z >> 31)


def take(numbers: Iterator[int], count: int) -> list[int]:
    return [next(numbers) for _ in range(count)]


def plain(seed: int, count: int, buckets: int) -> list[int]:
    return [(z >> 32) * buckets >> 32 for z in take(generator(next(generator(seed))), count)]


def balanced(seed: int, count: int, buckets: int) -> list[int]:
    rows = math.isqrt(count)
    columns = -(-count // rows)
    words = generator(next(generator(seed)))
    steps = [[z >> 1 for z in take(words, n)] for n in (columns, rows, columns, rows)]

    def move(place: int) -> int:
        row, column = divmod(place, columns)
        for turn in (0, 2):
            row = (row + steps[turn][column]) % rows
            column = (column + steps[turn + 1][row]) % columns
        place = row * columns + column
        return place if place < count else move(place)

    return [move(place) % buckets for place in range(count)]


def signs(seed: int, count: int) -> list[int]:
    return [1 - 2 * (z >> 63) for z in take(generator(take(generator(seed), 2)[1]), count)]


def test_the_mixer_gives_its_published_outputs() -> None:
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431,
                 16408922859458223821]
    assert splitmix64(1234567, 5).tolist() == take(generator(1234567), 5) == published


def test_golden_values() -> None:
    assert HASH == "splitmix64-1"
    assert hash_indices(1, 12, 5, True).tolist() == GOLDEN_BALANCED
    assert hash_indices(1, 12, 5, False).tolist() == GOLDEN_PLAIN
    assert hash_signs(1, 12).tolist() == GOLDEN_SIGNS


@pytest.mark.parametrize("seed", [0, 7, 2**63 + 5, -1])
@pytest.mark.parametrize(("count", "buckets"), [(1, 1), (2, 1), (3, 7), (97, 10), (1000, 250), (1003, 1)])
def test_tables_are_those_of_the_second_implementation(seed: int, count: int, buckets: int) -> None:
    assert hash_indices(seed, count, buckets, True).tolist() == balanced(seed, count, buckets)
    assert hash_indices(seed, count, buckets, False).tolist() == plain(seed, count, buckets)
    assert hash_signs(seed, count).tolist() == signs(seed, count)


@pytest.mark.parametrize(("count", "buckets"), [(1, 1), (5, 9), (24 * 16, 100), (30011, 997), (65536, 16384)])
def test_balanced_loads_differ_by_at_most_one(count: int, buckets: int) -> None:
    loads = torch.bincount(hash_indices(3, count, buckets, True), minlength=buckets)
    assert len(loads) == buckets and loads.max() - loads.min() <= 1


@pytest.mark.parametrize("balance", [True, False])
def test_buckets_signs_and_neighbours_look_random(balance: bool) -> None:
    count, buckets = 200_000, 50
    table, sign = hash_indices(11, count, buckets, balance).numpy(), hash_signs(11, count).numpy()
    assert abs(sign.sum()) < 4 * math.sqrt(count)
    width = math.isqrt(count)
    for other in (hash_indices(12, count, buckets, balance).numpy(), np.roll(table, 1), np.roll(table, width)):
        pairs = np.bincount(table * buckets + other, minlength=buckets**2)
        chi_square = ((pairs - count / buckets**2) ** 2).sum() / (count / buckets**2)
        assert abs(chi_square - buckets**2) < 5 * math.sqrt(2 * buckets**2)
    by_bucket = np.bincount(table, weights=sign, minlength=buckets)
    assert abs((by_bucket**2).mean() / (count / buckets) - 1) < 5 * math.sqrt(2 / buckets)


def test_plain_buckets_are_poisson() -> None:
    """At 1/c entries per bucket a fraction exp(-1/c) of the buckets is never used: 13.5 % at c = 1/2."""
    loads = torch.bincount(hash_indices(5, 100_000, 50_000, False), minlength=50_000)
    assert float((loads == 0).float().mean()) == pytest.approx(math.exp(-2), abs=0.005)
    assert float(loads.float().var()) == pytest.approx(2, rel=0.05)


def test_types_and_devices() -> None:
    assert hash_indices(0, 4, 2, True).dtype == hash_indices(0, 4, 2, False).dtype == torch.int64
    assert hash_signs(0, 4).dtype == torch.float32
    with torch.device("meta"):
        assert hash_indices(0, 4, 2, True).is_meta and hash_signs(0, 4).is_meta


def test_unknown_tables_are_refused() -> None:
    check_hash(HASH)
    with pytest.raises(UserError, match="md5"):
        check_hash("md5")


@pytest.mark.parametrize("name", ["hashed", "frequency_hash", "functional_hash"])
def test_a_spec_that_does_not_say_where_its_tables_come_from_is_refused(name: str) -> None:
    spec = structures.init(name, (24, 20), 0.5).spec()
    assert structures.build(name, spec).spec() == spec
    with pytest.raises(UserError, match=f"structure {name} cannot be built from .*'hash'"):
        structures.build(name, {key: value for key, value in spec.items() if key != "hash"})
