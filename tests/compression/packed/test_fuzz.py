"""Ten thousand random mutations of each golden file: each ends in the one error or in other numbers, soon."""

import resource
import time
from pathlib import Path

import numpy as np
import pytest

from asrcompress.compression import packed
from asrcompress.compression.packed import container
from tests.compression.packed.test_golden import FILES, build

MUTATIONS, SECONDS, MEGABYTES = 10_000, 2.0, 300


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, cut out, put in or repeated."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        place, size = int(rng.integers(len(out) + 1)), int(rng.integers(1, 9))
        kind = rng.integers(4)
        if kind == 0 and place < len(out):
            out[place] = int(rng.integers(256))
        elif kind == 1:
            del out[place : place + size]
        elif kind == 2:
            out[place:place] = rng.bytes(size)
        else:
            out[place:place] = out[place : place + 16 * size]
    return bytes(out)


def with_right_checksum(data: bytes, path: Path, rng: np.random.Generator) -> None:
    """The header or the streams mutated, in a container that is whole: what a checksum does not stop."""
    start = container.PREFIX.size + int.from_bytes(data[12:20], "little")
    header, streams = data[container.PREFIX.size : start], data[start : -container.DIGEST]
    if rng.integers(2):
        packed.write(path, mutated(header, rng), [streams])
    else:  # of the same length, or the table would say so at once
        packed.write(path, header, [(mutated(streams, rng) + bytes(len(streams)))[: len(streams)]])


@pytest.mark.slow
@pytest.mark.parametrize("source", FILES, ids=lambda path: path.stem)
def test_ten_thousand_mutations(source: Path, tmp_path: Path) -> None:
    data, rng, path = source.read_bytes(), np.random.default_rng(0), tmp_path / "mutated"
    packed.load(source, build)
    refused, longest, before = 0, 0.0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(MUTATIONS):
        if number % 4:
            with_right_checksum(data, path, rng)
        else:
            path.write_bytes(mutated(data, rng))
        started = time.process_time()
        try:
            packed.load(path, build)
        except packed.PackedError as error:
            assert "\n" not in str(error)
            refused += 1
        longest = max(longest, time.process_time() - started)
    assert refused > MUTATIONS // 2
    assert longest < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1024 * MEGABYTES
