"""Files that are either whole or not there."""

import errno
import fcntl
import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from asrcompress.errors import UserError

FULL = 1 << 20  # bytes: a disk with less is full


def as_sentence(error: OSError, path: Path | str = "a file") -> UserError | None:
    """The sentence for an error of a disk that takes nothing, of permissions, or of a file where a folder is to be (or
    a folder where a file is); None for any other error.

    `path` is what was to be written, for an error that does not say it.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return UserError(f"{path if error.filename is None else error.filename} cannot be written ({error.strerror}); "
                         "make room, or choose a folder on another disk, and run the same command again")
    if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST):
        return UserError(f"{path if error.filename is None else error.filename} is in the way, a file where a folder "
                         f"is needed or the other way round ({error.strerror}); move it away, or give another name")
    if error.errno in (errno.EACCES, errno.EPERM):
        return UserError(f"{path if error.filename is None else error.filename} cannot be opened ({error.strerror}); "
                         "change its permissions, or choose another folder")
    return None


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` when the block ends, remove it when it raises.

    The name is of this process and this machine: others may write the same file of a shared folder. Errors: UserError
    where `path` is a folder, the disk is full, whatever a library makes of that, or the folder may not be written.
    """
    path = refuse_folder(path)
    temporary = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except UserError:
        raise
    except Exception as error:
        full = os.strerror(errno.ENOSPC)
        if full in str(error) or (path.parent.is_dir() and _is_full(path.parent)):  # as libraries say it
            error = OSError(errno.ENOSPC, full)
        if isinstance(error, OSError) and (sentence := as_sentence(error, path)):
            raise sentence from None
        raise
    finally:
        with suppress(OSError):  # a disk that takes no file gives none away
            temporary.unlink(missing_ok=True)


def _is_full(folder: Path) -> bool:
    """Whether the disk of a folder has no room."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize < FULL


def require_file(path: Path | str, what: str) -> Path:
    """`path` as a Path, or a UserError that says which `what`, a file or a folder, is missing there."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{what} {path} does not exist")
    return path


def require_plain_file(path: Path | str, what: str) -> Path:
    """`path` as a Path. Errors: those of `require_file`, and UserError where it is a folder."""
    path = require_file(path, what)
    if path.is_dir():
        raise UserError(f"{what} {path} is a folder; give the name of the file")
    return path


def refuse_folder(path: Path | str) -> Path:
    """`path` as a Path, or a UserError where a folder is in the way of a file that is to be written there."""
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the name of a file, in it or elsewhere")
    return path


@contextmanager
def locked(folder: Path | str) -> Iterator[None]:
    """Hold an exclusive lock on a folder, which is made if it is not there; no lock file is left behind."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sha256(path: Path | str, what: str = "the file") -> str:
    """The SHA-256 digest of a file's content, in hexadecimal. Errors: UserError where there is no file."""
    digest = hashlib.sha256()
    with require_plain_file(path, what).open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_json(path: Path | str, content: Any) -> None:
    """Write `content` as JSON to a temporary name, then rename it to `path`."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path | str, what: str = "the JSON file") -> dict[str, Any]:
    """The JSON object of a file. Errors: UserError where there is none, or it is not one object."""
    try:
        found = json.loads(require_plain_file(path, what).read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{path} is not a JSON object; write it again with the command that made it")
    return found


def read_npz(path: Path | str, what: str = "the arrays") -> dict[str, Any]:
    """The arrays of an .npz file by name, without pickle. Errors: UserError where there is none, or it is damaged or
    something else."""
    import numpy as np

    path = require_file(path, what)
    try:
        with np.load(path, allow_pickle=False) as arrays:  # of a .npy file no context, but an array
            return {name: np.asarray(arrays[name]) for name in arrays.files}
    except (ValueError, OSError, TypeError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} cannot be read as .npz ({error}); write it with numpy.savez") from None


def shipped(name: str) -> Path:
    """A folder of files that come with the package: `asrcompress/NAME` of an installed wheel, or NAME of the clone.

    A folder of that name that stands beside an installed package, such as another project's `conf` in site-packages, is
    never taken. Errors: UserError where the installation lacks it.
    """
    package = Path(__file__).resolve().parent
    if (package / name).is_dir():
        return package / name
    if (package.parent / "pyproject.toml").is_file() and (package.parent / name).is_dir():
        return package.parent / name
    raise UserError(f"{package / name} is missing, so asrcompress is not installed whole; install it again")


def read_jsonl(path: Path | str) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file, [] where there is no file.

    Errors: UserError that names the file and the line.
    """
    path = Path(path)
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number} is not JSON ({error.msg}); remove or restore the line") from None
    return rows
