"""Files written once, as docs/packed.md says: every later version reads the same values from them, bit for bit."""

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from asrcompress.compression import coders, packed, quantization
from asrcompress.compression.packed import container

GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(GOLDEN.glob("*.packed"))


def build(config: object) -> nn.Module:
    return nn.Sequential(nn.Linear(12, 10), nn.Conv1d(6, 8, 3))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_values_of_a_golden_file_are_these(path: Path) -> None:
    expected = np.load(path.with_suffix(".npz"))
    state = packed.load(path, build).state_dict()
    assert set(state) == set(expected.files)
    for name, tensor in state.items():
        np.testing.assert_array_equal(tensor.numpy(), expected[name])


def test_every_quantization_and_every_coder_has_one() -> None:
    rows = [row for path in FILES for row in packed.info(path)]
    assert {row["quantization"] for row in rows} >= set(quantization.names())
    assert {row["coder"] for row in rows} >= set(coders.names())


@pytest.mark.parametrize("path", sorted((GOLDEN / "version1").glob("*.packed")), ids=lambda path: path.stem)
def test_files_of_version_1_say_with_what_to_read_them(path: Path) -> None:
    for read in (packed.info, lambda path: packed.load(path, build)):
        with pytest.raises(packed.PackedError, match="packed format version 1, which asrcompress 0.1.0 reads") as error:
            read(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_damaged_streams_under_a_right_checksum_end_in_the_one_error_or_other_values(path: Path, tmp_path: Path,
                                                                                       ) -> None:
    """What a checksum does not stop: a file made to deceive."""
    data, rng = bytearray(path.read_bytes()), np.random.default_rng(0)
    start = container.PREFIX.size + int.from_bytes(data[12:20], "little")
    for _ in range(60):
        streams = bytearray(data[start : -container.DIGEST])
        for _ in range(rng.integers(1, 4)):
            streams[rng.integers(len(streams))] = rng.integers(256)
        packed.write(tmp_path / "x", bytes(data[container.PREFIX.size : start]), [bytes(streams)])
        try:
            packed.load(tmp_path / "x", build)
        except packed.PackedError as error:
            assert "\n" not in str(error)
