"""Posterior archives: the float16 log-posteriors of a test set in one file that both environments read.

The network and the search are separate processes; this file is what passes between them. Little-endian, in this order:

    magic, version, header length     8 bytes, uint32, uint32
    header                            JSON {"dim": V, "meta": {...}}, padded with spaces to a multiple of 64 bytes
    rows                              float16, V numbers a frame, utterance after utterance
    index                             JSON [[utterance id, first row, rows], ...]
    index start, index length         uint64, uint64
    SHA-256 of all that comes before  32 bytes
"""

import hashlib
import json
import mmap
import struct
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from asrcompress.errors import UserError
from asrcompress.files import atomic, require_file

MAGIC = b"ASRCPOST"
VERSION = 1
PREFIX = struct.Struct("<8sII")
INDEX = struct.Struct("<QQ")
DIGEST_BYTES = 32
LOWEST = -60000.0  # log-probability of the impossible: -inf would turn into NaN in a search, and float16 ends at -65504


class ArchiveWriter(AbstractContextManager["ArchiveWriter"]):
    """Write an archive utterance by utterance; the file appears under its name when the block ends well.

    `meta` is any JSON object: which model, which runtime, `frame_seconds`.
    """

    def __init__(self, path: Path | str, dim: int, meta: dict[str, Any] | None = None) -> None:
        self.path, self.dim, self.meta = Path(path), dim, meta or {}
        self._index: list[tuple[str, int, int]] = []
        self._names: set[str] = set()
        self._rows = self._written = 0
        self._digest = hashlib.sha256()

    def __enter__(self) -> "ArchiveWriter":
        with ExitStack() as stack:
            self._file: IO[bytes] = stack.enter_context(stack.enter_context(atomic(self.path)).open("wb"))
            header = json.dumps({"dim": self.dim, "meta": self.meta}).encode()
            header += b" " * (-(PREFIX.size + len(header)) % 64)
            self._write(PREFIX.pack(MAGIC, VERSION, len(header)) + header)
            self._stack = stack.pop_all()
        return self

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._written += len(data)

    def add(self, utt: str, log_probs: Any) -> None:
        """Append the log-posteriors (T, V) of one utterance; UserError on NaN or a name that came before."""
        rows = np.asarray(log_probs, dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise ValueError(f"log-posteriors of {utt} have shape {rows.shape}, expected (frames, {self.dim})")
        if np.isnan(rows).any():
            raise UserError(f"the model gives NaN for utterance {utt}; train it again with a smaller learning rate")
        if utt in self._names:
            raise UserError(f"utterance {utt} comes twice; give every utterance of the test set its own id")
        self._names.add(utt)
        self._index.append((utt, self._rows, len(rows)))
        self._rows += len(rows)
        self._write(np.maximum(rows, LOWEST).astype("<f2").tobytes())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if kind is None:
            start, index = self._written, json.dumps(self._index).encode()
            self._write(index + INDEX.pack(start, len(index)))
            self._file.write(self._digest.digest())
        self._stack.__exit__(kind, error, trace)


class Archive:
    """A memory-mapped archive: `archive[utt]` is a read-only float16 array (T, V); `len` counts utterances.

    The checksum and every length are verified on opening; UserError says that the file must be made again.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = require_file(path, "the posterior archive")
        header, start, index = self._read()
        self.dim: int = header["dim"]
        self.meta: dict[str, Any] = header["meta"]
        self._spans = {utt: (first, rows) for utt, first, rows in index}
        numbers = np.frombuffer(self._map, "<f2", index_rows(index) * self.dim, start)
        self._rows = numbers.reshape(-1, self.dim)
        self.utts = list(self._spans)

    def _read(self) -> tuple[dict[str, Any], int, list[tuple[str, int, int]]]:
        """Header, byte where the rows start, and index, all lengths checked against the size of the file."""
        size = self.path.stat().st_size
        tail = INDEX.size + DIGEST_BYTES
        self._check(size >= PREFIX.size + tail, "is cut short")
        with self.path.open("rb") as stream:
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        magic, version, header_bytes = PREFIX.unpack_from(self._map, 0)
        self._check(magic == MAGIC, "is not a posterior archive")
        self._check(version == VERSION, f"has version {version}, this program reads {VERSION}")
        index_start, index_bytes = INDEX.unpack_from(self._map, size - tail)
        rows_start = PREFIX.size + header_bytes
        self._check(rows_start <= index_start and index_start + index_bytes == size - tail, "is cut short")
        with memoryview(self._map) as view:
            digest = hashlib.sha256(view[:-DIGEST_BYTES]).digest()
        self._check(digest == self._map[-DIGEST_BYTES:], "is damaged (its checksum does not match)")
        header = json.loads(self._map[PREFIX.size:rows_start])
        index = json.loads(self._map[index_start:index_start + index_bytes])
        rows_bytes = 2 * index_rows(index) * header["dim"]
        self._check(rows_bytes == index_start - rows_start, "is damaged (its index does not fit)")
        return header, rows_start, index

    def _check(self, good: bool, what: str) -> None:
        if not good:
            raise UserError(f"the posterior archive {self.path} {what}; compute the posteriors again")

    def __len__(self) -> int:
        return len(self.utts)

    def __getitem__(self, utt: str) -> np.ndarray:
        first, rows = self._spans[utt]
        return self._rows[first:first + rows]

    def frames(self, utt: str) -> int:
        """The number of frames of an utterance."""
        return self._spans[utt][1]

    @property
    def frame_seconds(self) -> float:
        """Seconds of audio a frame stands for; 0.04 (10 ms, subsampled by 4) unless `meta` says otherwise."""
        return float(self.meta.get("frame_seconds", 0.04))


def index_rows(index: list[tuple[str, int, int]]) -> int:
    """How many frames an index (utterance, first frame, frames) lists in all."""
    return sum(rows for _, _, rows in index)
