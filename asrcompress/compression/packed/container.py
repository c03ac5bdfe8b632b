"""container: the packed file as bytes: header, streams, checksum. Little-endian, checked on read, nothing executed.

    8 bytes   magic "ASRCPACK"
    u32       version, 3
    u64       length H of the header
    H bytes   header, JSON in UTF-8, {"model": {...}, "record": {...}, "tensors": [...]}, as zlib (RFC 1950) makes it
              short, then zeros; version 2, which is still read, has it as it is, then spaces
    streams   one after the other, in the order of the tensor table, without gaps
    32 bytes  SHA-256 of everything before

`model` says how the dense model is built (`adapters.py`), `record` what was done to it (`compression.record`; the table
says quantization and coder). A tensor of the table is {"name", "shape", "quantization", "coder", "offset", "length"}:
offset (from the end of the header) and length are bytes. One that is stored as it is has its dtype as `quantization`;
any other also has `spec` and `parts`: see `coding.py`.
"""

import hashlib
import json
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from asrcompress.compression.packed import coding
from asrcompress.errors import UserError
from asrcompress.files import require_plain_file

MAGIC = b"ASRCPACK"
VERSION = 3
PLAIN = 2  # the version whose header is not compressed
READERS = {1: "0.1.0"}  # the last version of asrcompress that reads an older format
PREFIX = struct.Struct("<8sIQ")
DIGEST = 32
HEADER_CAP = 16 * 2**20
ALIGNMENT = 64  # of the first stream, so that a reader may map the file


class PackedError(UserError):
    """A packed file that is damaged, cut short, or not one."""


def write(path: Path | str, header: bytes, streams: list[bytes]) -> None:
    """Write a container at `path`, around any header (UTF-8) and streams."""
    header, digest = _short(header), hashlib.sha256()
    with Path(path).open("wb") as file:
        for part in (PREFIX.pack(MAGIC, VERSION, len(header)), header, *streams):
            digest.update(part)
            file.write(part)
        file.write(digest.digest())


def length(header: bytes, streams: list[bytes]) -> int:
    """The bytes of the file that `write` writes."""
    return PREFIX.size + len(_short(header)) + sum(map(len, streams)) + DIGEST


def _short(header: bytes) -> bytes:
    """Compressed, and padded for the first stream."""
    header = zlib.compress(header, 9)
    return header + bytes(-(PREFIX.size + len(header)) % ALIGNMENT)


def is_packed(path: Path | str) -> bool:
    """Whether the file begins as a packed file does. Errors: UserError where there is no file."""
    with require_plain_file(path, "the model file").open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_header(file: BinaryIO, path: Path) -> dict[str, Any]:
    """The checked header of an open file, with `start`, where the streams begin. Errors: PackedError."""
    total = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(PREFIX.size)
    if not start.startswith(MAGIC):
        raise PackedError(f"{path} is not a packed model file (it begins with {start[:8]!r})")
    if len(start) < PREFIX.size or total < PREFIX.size + DIGEST:
        raise PackedError(f"{path} is cut short after {total} bytes; copy or make it again")
    _, version, length = PREFIX.unpack(start)
    _check_version(version, path)
    if length > min(HEADER_CAP, total - PREFIX.size - DIGEST):
        raise PackedError(f"{path} says that its header takes {length} bytes, which the file does not hold or the "
                          "format does not allow; it is damaged, copy or make it again")
    _checksum(file, total, path)
    file.seek(PREFIX.size)
    try:
        header = json.loads(_text(file.read(length), version).decode())
        _check_head(header)
        _check_table(header["tensors"], total - PREFIX.size - length - DIGEST)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, zlib.error) as error:
        raise PackedError(f"{path} has a header that contradicts itself or the file ({error}); make it again") from None
    return {**header, "start": PREFIX.size + length}


def _text(data: bytes, version: int) -> bytes:
    """The JSON of a header. Raises ValueError where it is longer than the format allows or not whole."""
    if version == PLAIN:
        return data
    inflate = zlib.decompressobj()
    text = inflate.decompress(data, HEADER_CAP)
    if not inflate.eof or inflate.unused_data.strip(b"\0"):
        raise ValueError("it is not one zlib stream of at most 16 MiB")
    return text


def _check_version(version: int, path: Path) -> None:
    if version in READERS:
        raise PackedError(f"{path} has packed format version {version}, which asrcompress {READERS[version]} reads and "
                          f"this one, which writes version {VERSION}, does not; load it there, or make the file again")
    if version not in (PLAIN, VERSION):
        raise PackedError(f"{path} has packed format version {version}, and this one reads {PLAIN} and {VERSION}; use "
                          "a newer one")


def _checksum(file: BinaryIO, total: int, path: Path) -> None:
    digest, left = hashlib.sha256(), total - DIGEST
    file.seek(0)
    while left and (block := file.read(min(left, 2**20))):
        digest.update(block)
        left -= len(block)
    if digest.digest() != file.read(DIGEST):
        raise PackedError(f"{path} is damaged or cut short: its checksum does not match; copy or make it again")


def _check_head(header: dict[str, Any]) -> None:
    """Raise ValueError (or what a wrong type raises) unless `model` and `record` can be read."""
    if not isinstance(header["model"]["adapter"], str) or not isinstance(header["model"]["config"], dict):
        raise ValueError("its model has no adapter or no config")
    if any(not isinstance(spec["structure"], str) for spec in header["record"]["layers"].values()):
        raise ValueError("a layer of its record has no structure")


def _check_table(table: list[dict[str, Any]], available: int) -> None:
    """Raise ValueError (or what a wrong type raises) unless the table fits the streams byte for byte."""
    names, offset = set(), 0
    for entry in table:
        name, shape = entry["name"], entry["shape"]
        counts = [entry["offset"], entry["length"], *shape]
        if not isinstance(name, str) or name in names or any(type(n) is not int or not 0 <= n < 2**48 for n in counts):
            raise ValueError(f"tensor {name!r} is listed twice or has impossible sizes")
        plain = coding.DTYPES.get(entry["quantization"]) if "parts" not in entry and entry["coder"] == "raw" else None
        if plain is None:
            coding.check(entry)
        if entry["offset"] != offset or (plain and entry["length"] != math.prod(shape) * plain.itemsize):
            raise ValueError(f"tensor {name!r} does not lie where it should or has another length than its shape")
        names.add(name)
        offset += entry["length"]
    if offset != available:
        raise ValueError(f"its tensors take {offset} bytes and the file has {available}")
