"""packed: the model file whose size is what the tables print. Little-endian, checked on read, nothing executed.

    8 bytes   magic "ASRCPACK"
    u32       version, 1
    u64       length H of the header
    H bytes   header, JSON in UTF-8: {"config": {...}, "tensors": [...]}, padded with spaces
    streams   one after the other, in the order of the tensor table, without gaps
    32 bytes  SHA-256 of everything before

A tensor of the table is {"name", "shape", "quantization", "coder", "offset", "length"}: `values` says how its numbers are
written, `bits` how those are stored; offset (from the end of the header) and length are bytes. What is not plain
float32 or int64 also has `spec` and `parts`: see `coding.py`. The config rebuilds the model: its `layers` say which
structure each compressed layer has; tables that follow from a seed are not stored.
"""

import hashlib
import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from asrcompress import models
from asrcompress.compression import activations, modules, quantization
from asrcompress.compression.folding import fold
from asrcompress.compression.packed import coding
from asrcompress.compression.quantization import Quantizer
from asrcompress.errors import UserError
from asrcompress.files import atomic, require_file

MAGIC = b"ASRCPACK"
VERSION = 1
PREFIX = struct.Struct("<8sIQ")
DIGEST = 32
HEADER_CAP = 16 * 2**20
ALIGNMENT = 64  # of the first stream, so that a reader may map the file
DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "int64": np.dtype("<i8")}  # by the name under `values`

Build = Callable[[Mapping[str, Any]], nn.Module]


class PackedError(UserError):
    """A packed file that is damaged, cut short, or not one."""


def save(path: Path | str, model: nn.Module, coder: Mapping[str, Any] | None = None) -> nn.Module:
    """Write a model with BatchNorm folded. It needs a `config` from which it can be built again (as ours have).

    Tensors that `values` were applied to go through the coder that `bits` names, {"coder": "raw", "options": {},
    "vectors": "float32"}; without, that of the model's config. The others are written as float32, or those of one
    dimension (biases) as `vectors` says, float32 or float16. The model itself is not touched; the one
    that was written is returned, in eval mode: what `load` gives, with its values still attached.
    """
    written: Any = fold(model)
    if not isinstance(getattr(written, "config", None), Mapping):
        raise UserError(f"a packed file carries the model's config, and this {type(model).__name__} has none; "
                        "set model.config to the JSON values from which it is built")
    how = {"coder": "raw", "options": {}, "vectors": "float32", **(coder or written.config.get("coder") or {})}
    order = [name for name, _ in _numbers(written)]
    if how["vectors"] != "float32":
        _write_vectors(written, how["vectors"])
    numbers = dict(_numbers(written))
    table: list[dict[str, Any]] = []
    streams, offset = [], 0
    for name in order:
        tensor = numbers[name]
        if isinstance(tensor, Tensor):
            entry, stream = _plain(tensor)
        else:
            entry, stream = coding.encode(tensor, how["coder"], how["options"])
        table.append({"name": name, **entry, "offset": offset})
        streams.append(stream)
        offset += len(stream)
    config = {key: value for key, value in written.config.items() if key not in ("quantization", "coder")}  # the table says it
    try:
        header = json.dumps({"config": config, "tensors": table}, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise UserError(f"the model's config is not plain JSON ({error}), so no packed file can carry it") from None
    write(path, header, streams)
    return written


def _numbers(model: nn.Module) -> Iterator[tuple[str, Tensor | Quantizer]]:
    """Every tensor of a model by the name that it has without values, as itself or as the values that write it."""
    yield from quantization.attached(model).items()
    inside = _inside_values(model)
    yield from ((name, tensor) for name, tensor in models.stored(model).items() if not name.startswith(inside))


def _write_vectors(model: nn.Module, kind: str) -> None:
    """Let values of this kind make every tensor of one dimension that none make yet, in place."""
    inside, made = _inside_values(model), dict[int, Quantizer]()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.dim() != 1 or not tensor.is_floating_point() or name.startswith(inside):
            continue
        if id(tensor) not in made:  # modules that share a tensor go on doing so
            made[id(tensor)] = quantization.fit(kind, tensor)
        owner, _, leaf = name.rpartition(".")
        if not parametrize.is_parametrized(model.get_submodule(owner), leaf):  # it is for a module that has two names
            quantization.attach(model, name, made[id(tensor)])
    quantization.record_config(model)


def _inside_values(model: nn.Module) -> tuple[str, ...]:
    """How the names of the tensors begin that values have themselves."""
    return tuple(f"{path}." for path, module in model.named_modules(remove_duplicate=False)
                 if isinstance(module, Quantizer))


def _plain(tensor: Tensor) -> tuple[dict[str, Any], bytes]:
    kind = "float32" if tensor.is_floating_point() else "int64"
    stream = tensor.detach().cpu().to(getattr(torch, kind)).numpy().astype(DTYPES[kind]).tobytes()
    return {"shape": list(tensor.shape), "quantization": kind, "coder": "raw", "length": len(stream)}, stream


def write(path: Path | str, header: bytes, streams: list[bytes]) -> None:
    """Write the container, whole or not at all."""
    header += b" " * (-(PREFIX.size + len(header)) % ALIGNMENT)
    digest = hashlib.sha256()
    with atomic(path) as temporary, temporary.open("wb") as file:
        for part in (PREFIX.pack(MAGIC, VERSION, len(header)), header, *streams):
            digest.update(part)
            file.write(part)
        file.write(digest.digest())


def is_packed(path: Path | str) -> bool:
    """Whether the file begins as a packed file does."""
    with require_file(path, "the model file").open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def load(path: Path | str, build: Build = models.build) -> nn.Module:
    """The model of a packed file, in eval mode; `build(config)` makes the dense model of its config, on "meta" first.

    Nothing is allocated before the checksum and every length were checked, and the model's tensors not before their
    shapes were compared with the table. Errors: PackedError, one sentence.
    """
    path = require_file(path, "the packed file")
    with path.open("rb") as file:
        header = _header(file, path)
        with torch.device("meta"):
            expected = models.stored(_assemble(header["config"], build, path))
        shapes = {entry["name"]: tuple(entry["shape"]) for entry in header["tensors"]}
        if shapes != {name: tuple(tensor.shape) for name, tensor in expected.items()}:
            raise PackedError(f"{path}: its tensors are not those of the model in its config; make the file again")
        model = _assemble(header["config"], build, path)
        try:
            models.load_stored(model, dict(_tensors(file, header)))
        except (ValueError, OverflowError) as error:
            raise PackedError(f"{path} holds a tensor that cannot be decoded ({error}); make it again") from None
    model.config = header["config"]
    return model.eval()


def info(path: Path | str) -> list[dict[str, Any]]:
    """Where each byte of the file goes: rows of name, structure, shape, values, bits, numbers, bytes, in file order."""
    path = require_file(path, "the packed file")
    with path.open("rb") as file:
        header = _header(file, path)
    compressed = header["config"].get("layers") or {}
    rows = [{"name": "header", "structure": "", "shape": [], "quantization": "", "coder": "json", "numbers": 0,
             "bytes": header["start"]}]
    for entry in header["tensors"]:
        owner = next((layer for layer in compressed if _stem(entry["name"]).startswith(_stem(layer) + ".")), None)
        inside = owner is not None and ".structure." in entry["name"]
        rows.append({"name": entry["name"], "structure": compressed[owner]["structure"] if inside else "dense",
                     **{key: entry[key] for key in ("shape", "quantization", "coder")},
                     "numbers": math.prod(entry["shape"]), "bytes": entry["length"]})
    return [*rows, {"name": "checksum", "structure": "", "shape": [], "quantization": "", "coder": "sha256", "numbers": 0,
                    "bytes": DIGEST}]


def _stem(name: str) -> str:
    """A tensor's or layer's path without what parametrization adds to it."""
    return name.replace("parametrizations.", "")


def _header(file: BinaryIO, path: Path) -> dict[str, Any]:
    """The checked header of an open file, with `start`, where the streams begin."""
    total = path.stat().st_size
    start = file.read(PREFIX.size)
    if not start.startswith(MAGIC):
        raise PackedError(f"{path} is not a packed model file (it begins with {start[:8]!r})")
    if len(start) < PREFIX.size or total < PREFIX.size + DIGEST:
        raise PackedError(f"{path} is cut short after {total} bytes; copy or make it again")
    _, version, length = PREFIX.unpack(start)
    if version != VERSION:
        raise PackedError(f"{path} has format version {version}, and this program reads {VERSION}; use a newer one")
    if length > min(HEADER_CAP, total - PREFIX.size - DIGEST):
        raise PackedError(f"{path} says that its header takes {length} bytes, which the file does not hold or the "
                          "format does not allow; it is damaged, copy or make it again")
    _checksum(file, total, path)
    file.seek(PREFIX.size)
    try:
        header = json.loads(file.read(length).decode())
        _check_table(header, total - PREFIX.size - length - DIGEST)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise PackedError(f"{path} has a header that contradicts itself or the file ({error}); make it again") from None
    return {**header, "start": PREFIX.size + length}


def _checksum(file: BinaryIO, total: int, path: Path) -> None:
    digest, left = hashlib.sha256(), total - DIGEST
    file.seek(0)
    while left and (block := file.read(min(left, 2**20))):
        digest.update(block)
        left -= len(block)
    if digest.digest() != file.read(DIGEST):
        raise PackedError(f"{path} is damaged or cut short: its checksum does not match; copy or make it again")


def _check_table(header: dict[str, Any], available: int) -> None:
    """Raise ValueError (or what a wrong type raises) unless the table fits the streams byte for byte."""
    if any(not isinstance(spec["structure"], str) for spec in header["config"].get("layers", {}).values()):
        raise ValueError("a layer of its config has no structure")
    names, offset = set(), 0
    for entry in header["tensors"]:
        name, shape = entry["name"], entry["shape"]
        numbers = [entry["offset"], entry["length"], *shape]
        if not isinstance(name, str) or name in names or any(type(n) is not int or not 0 <= n < 2**48 for n in numbers):
            raise ValueError(f"tensor {name!r} is listed twice or has impossible numbers")
        plain = DTYPES.get(entry["quantization"])
        if plain is None or entry["coder"] != "raw" or "parts" in entry:
            coding.check(entry)
        if entry["offset"] != offset or (plain and entry["length"] != math.prod(shape) * plain.itemsize):
            raise ValueError(f"tensor {name!r} does not lie where it should or has another length than its shape")
        names.add(name)
        offset += entry["length"]
    if offset != available:
        raise ValueError(f"its tensors take {offset} bytes and the file has {available}")


def _assemble(config: dict[str, Any], build: Build, path: Path) -> nn.Module:
    try:
        model = modules.restore(build(config), config.get("layers") or {}).eval()
        return activations.restore(model, config.get("activations") or {})
    except Exception as error:  # whatever a made-up config sets off in a model's constructor, the file is to blame
        reason = " ".join(str(error).split())
        raise PackedError(f"{path} has a config from which no model can be built ({reason}); make it again") from error


def _tensors(file: BinaryIO, header: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    file.seek(header["start"])
    for entry in header["tensors"]:
        stream = file.read(entry["length"])
        if "parts" in entry:
            yield entry["name"], torch.from_numpy(coding.decode(entry, stream))
            continue
        data = np.frombuffer(stream, DTYPES[entry["quantization"]])
        native = data.astype(data.dtype.newbyteorder("="))  # a copy, which torch may own
        yield entry["name"], torch.from_numpy(native).reshape(entry["shape"])
