"""Files that are whole or not there, and folders that come with the package."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from asrcompress import files
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
