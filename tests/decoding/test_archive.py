"""Posterior archives: what goes in comes out, and a damaged file is told from a whole one.

Runs in both environments.
"""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from asrcompress.decoding.archive import Archive, ArchiveWriter
from asrcompress.errors import UserError


@pytest.fixture
def rows() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {utt: np.log(random.dirichlet(np.ones(5), size=frames)) for utt, frames in [("b", 7), ("a", 3), ("none", 0)]}


@pytest.fixture
def path(tmp_path: Path, rows: dict[str, np.ndarray]) -> Path:
    path = tmp_path / "folder" / "dev.post"
    with ArchiveWriter(path, 5, {"model": "dense", "frame_seconds": 0.03}) as archive:
        for utt, log_probs in rows.items():
            archive.add(utt, log_probs)
    return path


def test_round_trip(path: Path, rows: dict[str, np.ndarray]) -> None:
    archive = Archive(path)
    assert archive.utts == ["b", "a", "none"]
    assert len(archive) == 3
    assert archive.meta["model"] == "dense"
    assert archive.frame_seconds == 0.03
    for utt, log_probs in rows.items():
        assert archive[utt].dtype == np.float16
        assert archive.frames(utt) == len(log_probs)
        np.testing.assert_array_equal(archive[utt], log_probs.astype(np.float16))
    assert [p.name for p in path.parent.iterdir()] == ["dev.post"]


def test_the_layout_is_what_the_module_says(path: Path, rows: dict[str, np.ndarray]) -> None:
    data = path.read_bytes()
    assert data[:8] == b"ASRCPOST"
    assert data[-32:] == hashlib.sha256(data[:-32]).digest()
    start = 16 + int.from_bytes(data[12:16], "little")
    assert start % 64 == 0
    np.testing.assert_array_equal(np.frombuffer(data, "<f2", 35, start).reshape(7, 5), rows["b"].astype(np.float16))


def test_minus_infinity_becomes_finite(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "x", 2) as archive:
        archive.add("u", np.array([[0, -np.inf]]))
    assert np.isfinite(Archive(tmp_path / "x")["u"]).all()


@pytest.mark.parametrize("keep", [0, 10, 60, 0.3, 0.5, -33, -1])
def test_cut_short(path: Path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(UserError, match="dev.post .*; compute the posteriors again"):
        Archive(path)


def test_any_flipped_byte(path: Path) -> None:
    data = path.read_bytes()
    for place in range(0, len(data), 7):
        path.write_bytes(data[:place] + bytes([data[place] ^ 255]) + data[place + 1:])
        with pytest.raises(UserError, match="dev.post"):
            Archive(path)


def test_another_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x" * 1000)
    with pytest.raises(UserError, match="is not a posterior archive"):
        Archive(tmp_path / "x")
    with pytest.raises(UserError, match="does not exist"):
        Archive(tmp_path / "y")


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="NaN for utterance u2"), ArchiveWriter(tmp_path / "x", 2) as archive:
        archive.add("u1", np.zeros((3, 2)))
        archive.add("u2", np.array([[0.0, np.nan]]))
    with pytest.raises(UserError, match="u1 comes twice"), ArchiveWriter(tmp_path / "x", 2) as archive:
        archive.add("u1", np.zeros((3, 2)))
        archive.add("u1", np.zeros((3, 2)))
    assert not list(tmp_path.iterdir())


def test_wrong_shape(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shape"), ArchiveWriter(tmp_path / "x", 2) as archive:
        archive.add("u1", np.zeros((3, 4)))
