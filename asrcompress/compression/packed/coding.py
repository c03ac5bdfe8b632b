"""coding: one tensor as bytes and back, for the packed file: its quantizer encodes it, a coder stores the integers.

An entry of the packed file's tensor table that is not stored as it is has `spec`, the JSON that its quantization's
`decode` needs, and `parts`, in the order of their bytes: {"key", "type": "float32" or "float16" or "integers", "shape",
"length"}. All integers of an entry go through the entry's `coder`. A part "row_scale" of any quantization multiplies
the rows of the tensor after decoding: a BatchNorm that was folded. `dtype` is the tensor's where that is not float32.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asrcompress.compression import coders, quantization
from asrcompress.compression.quantization import Encoded, Quantizer
from asrcompress.errors import UserError

FLOATS: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}
# Of tensors that are stored as they are; numpy has no bfloat16, so its bits go through integers.
DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"), "float64": np.dtype("<f8"), "float16": np.dtype("<f2"), "bfloat16": np.dtype("<i2"),
    "int64": np.dtype("<i8"), "int32": np.dtype("<i4"), "int16": np.dtype("<i2"), "int8": np.dtype("i1"),
    "uint8": np.dtype("u1"), "bool": np.dtype("?"), "complex64": np.dtype("<c8"), "complex128": np.dtype("<c16")}
SMALLEST = "smallest"  # in place of a coder's name: whichever makes the tensor shortest
ROOM = 4  # an entry may have this many times as many symbols as the tensor has values, and 2^16 more
QUANTIZED = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}


def plain(name: str, tensor: Tensor) -> tuple[dict[str, Any], bytes]:
    """The entry (without name and offset) and the bytes of a tensor that is stored as it is.

    Errors: UserError for a dtype or layout that no file can hold.
    """
    kind = str(tensor.dtype).removeprefix("torch.")
    if kind not in DTYPES or tensor.layout != torch.strided:
        raise UserError(f"the tensor '{name}' is {kind} ({tensor.layout}), which no packed file can hold; convert it")
    data = tensor.detach().cpu().contiguous()
    stream = (data.view(torch.int16) if kind == "bfloat16" else data).numpy().astype(DTYPES[kind]).tobytes()
    return {"shape": list(tensor.shape), "quantization": kind, "coder": "raw", "length": len(stream)}, stream


def decode_tensor(entry: Mapping[str, Any], stream: bytes) -> Tensor:
    """The tensor of a checked entry, stored as it is or quantized. Errors: ValueError for damaged data."""
    if "parts" in entry:
        return torch.from_numpy(decode(entry, stream)).to(QUANTIZED[entry.get("dtype", "float32")])
    kind = entry["quantization"]
    data = np.frombuffer(stream, DTYPES[kind])
    # a copy, which torch may own
    tensor = torch.from_numpy(data.astype(data.dtype.newbyteorder("="))).reshape(entry["shape"])
    return tensor.view(torch.bfloat16) if kind == "bfloat16" else tensor


def encode(one: Quantizer, coder: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The entry (without name and offset) and the bytes of a quantized tensor; coder "smallest" is the best for it.

    Errors: those of the coder's options.
    """
    encoded = one.encode()
    if coder == SMALLEST:
        return min((_encoded(one, encoded, name, {}) for name in coders.names()), key=lambda pair: len(pair[1]))
    return _encoded(one, encoded, coder, options)


def _encoded(one: Quantizer, encoded: Encoded, coder: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    parts, streams = [], []
    floats = dict(encoded.floats)
    if one.row_scale is not None:
        floats["row_scale"] = one.row_scale.detach().cpu().float().numpy()
    for key, numbers in floats.items():
        kind = "float16" if numbers.dtype == np.float16 else "float32"
        streams.append(numbers.astype(FLOATS[kind]).tobytes())
        parts.append({"key": key, "type": kind, "shape": list(numbers.shape), "length": len(streams[-1])})
    for key, array in encoded.integers.items():
        streams.append(coders.encode(coder, array, **options))
        parts.append({"key": key, "type": "integers", "shape": list(array.shape), "length": len(streams[-1])})
    stream = b"".join(streams)
    dtype = str(getattr(one, "dtype", torch.float32)).removeprefix("torch.")
    return {"shape": list(one.shape), "quantization": one.name, "coder": coder if encoded.integers else "raw",
            **({} if dtype == "float32" else {"dtype": dtype}), "spec": encoded.spec,
            "parts": parts, "length": len(stream)}, stream


def check(entry: Mapping[str, Any]) -> None:
    """Raise ValueError (or what a wrong type raises) unless the parts can be read as the entry says."""
    kind, coder = entry["quantization"], entry["coder"]
    if kind not in quantization.names() or coder not in coders.names() or not isinstance(entry["spec"], dict):
        raise ValueError(f"tensor {entry['name']!r} has quantization {kind!r} and coder {coder!r}, unknown here")
    if entry.get("dtype", "float32") not in QUANTIZED:
        raise ValueError(f"tensor {entry['name']!r} has an unknown dtype")
    most = ROOM * math.prod(entry["shape"]) + 2**16
    for part in entry["parts"]:
        counts = [part["length"], *part["shape"]]
        if not isinstance(part["key"], str):
            raise ValueError(f"tensor {entry['name']!r} has a part without a name")
        if any(type(n) is not int or not 0 <= n < 2**48 for n in counts) or math.prod(part["shape"]) > most:
            raise ValueError(f"tensor {entry['name']!r} has a part with impossible sizes")
        if part["type"] != "integers" and part["length"] != math.prod(part["shape"]) * FLOATS[part["type"]].itemsize:
            raise ValueError(f"tensor {entry['name']!r} has a part of another length than its shape")
    if sum(math.prod(part["shape"]) for part in entry["parts"]) > most:
        raise ValueError(f"tensor {entry['name']!r} has more symbols in its parts than it can need")
    if sum(part["length"] for part in entry["parts"]) != entry["length"]:
        raise ValueError(f"the parts of tensor {entry['name']!r} do not add up to its length")


def decode(entry: Mapping[str, Any], data: bytes) -> NDArray[np.float32]:
    """The tensor of a checked entry. Raises ValueError for data that no `encode` wrote."""
    integers: dict[str, NDArray[np.int64]] = {}
    floats: dict[str, NDArray[np.floating]] = {}
    offset = 0
    for part in entry["parts"]:
        piece, offset = data[offset : offset + part["length"]], offset + part["length"]
        if part["type"] == "integers":
            integers[part["key"]] = coders.decode(entry["coder"], piece, part["shape"])
        else:
            floats[part["key"]] = np.frombuffer(piece, FLOATS[part["type"]]).reshape(part["shape"])
    row_scale = floats.pop("row_scale", None)
    try:
        family = quantization.family(entry["quantization"])
        tensor = family.decode(Encoded(integers, floats, dict(entry["spec"])), tuple(entry["shape"]))
        if row_scale is not None:
            if row_scale.shape != tensor.shape[:1]:
                raise ValueError(f"{row_scale.shape} scales for the rows of {tensor.shape}")
            tensor = tensor * row_scale.reshape(-1, *[1] * (tensor.ndim - 1)).astype(np.float32)
    except (KeyError, TypeError, IndexError, UserError) as error:
        raise ValueError(f"its parts do not make a tensor ({error!r})") from None
    if tensor.shape != tuple(entry["shape"]):
        raise ValueError(f"its parts make a tensor {tensor.shape}, not {tuple(entry['shape'])}")
    return np.ascontiguousarray(tensor, dtype=np.float32)
