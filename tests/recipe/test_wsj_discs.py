"""The writers of disc-like files, against a decoder of shorten that is its own and against gzip."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from recipes.wsj import discs
from tests.shorten import decode

RNG = np.random.default_rng(1)
KINDS = {
    "noise": lambda count: RNG.integers(-32768, 32768, count),
    "offset": lambda count: RNG.integers(-3, 4, count) - 701,  # predictor 0, and a mean that is rounded
    "walk": lambda count: RNG.integers(-2, 3, count).cumsum(),  # predictor 1
    "wave": lambda count: 20000 * np.sin(np.arange(count) / 30),  # predictors 2 and 3
    "silence": np.zeros,
    "lowest": lambda count: np.full(count, -32768),
}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_shorten_decodes_to_the_samples(kind: str, version: int) -> None:
    for count in (0, 1, 255, 256, 257, 1500):
        samples = KINDS[kind](count).astype(np.int16)
        stream = discs.shorten(samples, version)
        np.testing.assert_array_equal(decode(stream), samples)
        assert len(stream) % 4 == 1  # words of 32 bits follow the magic and the version
    if kind != "noise":
        assert len(stream) < samples.nbytes * 0.7


def test_the_versions_differ_where_a_mean_is_rounded() -> None:
    """Blocks of the mean 2.75: version 1 expects 2, version 2 expects 3."""
    samples = np.tile([2, 3, 3, 3], 512).astype(np.int16)
    assert discs._offsets(samples.astype(np.int64), 1).tolist() == [0, 0, 1, 1, *[2] * 5]
    assert discs._offsets(samples.astype(np.int64), 2).tolist() == [0, 1, 2, 2, *[3] * 5]


@pytest.mark.parametrize("content", [
    b"", b"a", b"aaaaaaaaaaaaaaaaaaaa", b"one two three\n" * 40, RNG.bytes(400), RNG.bytes(150_000),
    RNG.integers(97, 105, 800_000).astype(np.uint8).tobytes()], ids=len)
def test_gzip_reads_lzw(content: bytes, tmp_path: Path) -> None:
    """Through every width of the codes, and on when the table is full."""
    (tmp_path / "text.z").write_bytes(discs.lzw(content))
    assert subprocess.run(["gzip", "-cdf", tmp_path / "text.z"], capture_output=True, check=True).stdout == content
