"""Files that are whole or not there, and folders that come with the package."""

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from asrcompress import cli, files
from asrcompress.errors import UserError
from tests.conftest import REPO


def test_json_comes_back_and_nothing_else_is_left(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a" / "x.json", {"name": "Jürgen", "rtf": 0.5})
    assert files.read_json(tmp_path / "a" / "x.json") == {"name": "Jürgen", "rtf": 0.5}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x.json"]


@pytest.mark.parametrize("content", ["", "[1]", "{"])
def test_what_is_no_object_is_a_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UserError, match="x.json is not a JSON object"):
        files.read_json(tmp_path / "x.json")
    with pytest.raises(UserError, match="the scales .*none does not exist"):
        files.read_json(tmp_path / "none", "the scales")


def test_the_digest_of_a_file_is_sha256(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000  # more than a block
    (tmp_path / "x").write_bytes(content)
    assert files.sha256(tmp_path / "x") == hashlib.sha256(content).hexdigest()


def test_a_locked_folder_waits_for_the_other_process(tmp_path: Path) -> None:
    program = (f"from asrcompress import files\nwith files.locked({str(tmp_path)!r}):\n"
               f"    open({str(tmp_path / 'second')!r}, 'w').close()")
    with files.locked(tmp_path):
        other = subprocess.Popen([sys.executable, "-c", program], cwd=REPO)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(2)
        assert not (tmp_path / "second").exists()
    assert other.wait(30) == 0 and (tmp_path / "second").exists()


def test_folders_of_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert files.shipped("conf") == REPO / "conf"
    site = tmp_path / "site-packages"
    (site / "conf").mkdir(parents=True)  # of another project
    (site / "asrcompress").mkdir()
    monkeypatch.setattr(files, "__file__", str(site / "asrcompress" / "files.py"))
    with pytest.raises(UserError, match="asrcompress is not installed whole"):
        files.shipped("conf")
    (site / "asrcompress" / "conf").mkdir()
    assert files.shipped("conf") == site / "asrcompress" / "conf"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a disk")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # torch leaves its file open


def _plain(path: Path) -> None:
    path.write_bytes(bytes(5 << 20))


def _torch(path: Path) -> None:
    import torch

    torch.save(torch.zeros(5 << 18), path)


def _safetensors(path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(5 << 18)}, path)


def _numpy(path: Path) -> None:
    np.zeros(5 << 17).tofile(path)


@pytest.mark.parametrize("write", [_plain, _torch, _safetensors, _numpy])
def test_a_full_disk_is_one_sentence_and_keeps_the_old_file(small_disk: Path, write: Callable[[Path], None]) -> None:
    (small_disk / "x").write_text("old")
    with pytest.raises(UserError, match="cannot be written .No space left on device.; make room"), \
            files.atomic(small_disk / "x") as temporary:
        write(temporary)
    assert [path.name for path in small_disk.iterdir()] == ["x"] and (small_disk / "x").read_text() == "old"


def test_a_disk_that_may_only_be_read_is_one_sentence(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for path in (small_disk / "x", small_disk / "new" / "x"):
        with pytest.raises(UserError, match="cannot be written .Read-only file system."):
            files.write_json(path, {})
    assert cli.main(["synthesize", "--out", str(small_disk / "corpus")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("asrcompress synthesize: ") and "Read-only file system" in said and said.count("\n") == 1


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), files.atomic(tmp_path / "x"):
        1 / 0  # noqa: B018
    with pytest.raises(FileNotFoundError), files.atomic(tmp_path / "x"):
        (tmp_path / "none").read_text()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_where_a_file_is_to_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("here")
    with pytest.raises(UserError, match="folder is a folder; give the name of a file"), \
            files.atomic(tmp_path / "folder"):
        raise AssertionError("the work has begun")
    for path in (tmp_path / "file" / "x", tmp_path / "file" / "new" / "x"):
        with pytest.raises(UserError, match="is in the way, a file where .*; move it away, or give another name"):
            files.write_json(path, {})
    for read in (files.sha256, files.read_json):
        with pytest.raises(UserError, match="folder is a folder; give the name of the file"):
            read(tmp_path / "folder")
    assert "Is a directory" in str(files.as_sentence(IsADirectoryError(21, "Is a directory", "x")))
    assert files.require_file(tmp_path / "folder", "the set") == tmp_path / "folder"


def test_arrays_come_back_and_what_is_no_npz_is_a_sentence(tmp_path: Path) -> None:
    whole, other = tmp_path / "x.npz", tmp_path / "y.npz"
    np.savez_compressed(whole, x=np.arange(999))
    assert (files.read_npz(whole)["x"] == np.arange(999)).all()
    content = whole.read_bytes()
    np.save(tmp_path / "y.npy", np.zeros(3))
    damaged = content[:300] + bytes(80) + content[380:]
    for bad in (b"", content[:len(content) // 2], damaged, b"no array", (tmp_path / "y.npy").read_bytes()):
        other.write_bytes(bad)
        with pytest.raises(UserError, match="y.npz cannot be read as .npz .*; write it with numpy.savez"):
            files.read_npz(other)
    with pytest.raises(UserError, match="the inputs .*none does not exist"):
        files.read_npz(tmp_path / "none", "the inputs")
