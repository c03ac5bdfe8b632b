"""reader: the model of a packed file, or the table of where its bytes go."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from asrcompress.compression import record, state
from asrcompress.compression.packed import adapters, coding
from asrcompress.compression.packed.container import DIGEST, PackedError, read_header
from asrcompress.files import require_plain_file


def load(path: Path | str, build: adapters.Build | None = None) -> nn.Module:
    """The model of a packed file, in eval mode.

    `build(config)` makes the dense model, on "meta" first; our own models and Hugging Face's need none. Nothing is
    allocated before the checksum and every length were checked, and the model's tensors not before their shapes were
    compared with the table. Errors: PackedError, one sentence; UserError where `build` is missing.
    """
    path = require_plain_file(path, "the packed file")
    with path.open("rb") as file:
        description = read_header(file, path)["model"]
    return read(path, adapters.builder(description, build, str(path)))


def read(path: Path, builder: Callable[[], nn.Module], named: Path | None = None) -> nn.Module:
    """`load` with what builds the dense model; `named` is what sentences call a file that has no name yet."""
    with path.open("rb") as file:
        path = named or path
        header = read_header(file, path)
        _check_without_memory(header, builder, path)
        model = _assemble(header, builder, path)
        _check_shapes(header, model, path)
        try:
            state.load_stored(model, dict(_tensors(file, header)))
        except (ValueError, OverflowError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise PackedError(f"{path} holds a tensor that cannot be decoded ({reason}); make it again") from None
    return model.eval()


def _check_without_memory(header: dict[str, Any], builder: Callable[[], nn.Module], path: Path) -> None:
    """Compare the table with a model of the header that takes no memory, where such can be built."""
    try:
        with torch.device("meta"):
            model = builder()
    except (NotImplementedError, RuntimeError) as error:
        if "meta" not in str(error):
            raise _impossible(path, error) from error
        return  # its constructor reads values, which "meta" tensors have not
    except Exception as error:
        raise _impossible(path, error) from error
    with torch.device("meta"):
        model = _assemble(header, lambda: model, path)
    _check_shapes(header, model, path)


def _check_shapes(header: dict[str, Any], model: nn.Module, path: Path) -> None:
    """Compare the table with a model of the header: a tensor of any shape may take no bytes in the file."""
    expected = {name: tuple(tensor.shape) for name, tensor in state.stored(model).items()}
    firsts = state.first_names(model)
    table = {firsts.get(entry["name"], entry["name"]): tuple(entry["shape"]) for entry in header["tensors"]}
    if len(expected) != len(header["tensors"]) or expected != table:
        raise PackedError(f"{path}: its tensors are not those of the model in its config; make the file again")


def _assemble(header: dict[str, Any], builder: Callable[[], nn.Module], path: Path) -> nn.Module:
    try:
        return record.apply_config(builder(), header["record"]).eval()
    except Exception as error:  # whatever a made-up config sets off in a model's constructor, the file is to blame
        raise _impossible(path, error) from error


def _impossible(path: Path, error: Exception) -> PackedError:
    reason = " ".join(str(error).split())
    return PackedError(f"{path} has a config from which no model can be built ({reason}); make it again")


def _tensors(file: BinaryIO, header: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    file.seek(header["start"])
    for entry in header["tensors"]:
        stream = file.read(entry["length"])
        yield entry["name"], coding.decode_tensor(entry, stream)


def info(path: Path | str) -> list[dict[str, Any]]:
    """Where each byte of the file goes, in file order: rows of name, structure, shape, quantization, coder,
    `parameters` (how many values) and `bytes`. Errors: PackedError."""
    path = require_plain_file(path, "the packed file")
    with path.open("rb") as file:
        header = read_header(file, path)
    layers = header["record"]["layers"]
    rows = [{"name": "header", "structure": "", "shape": [], "quantization": "", "coder": "json", "parameters": 0,
             "bytes": header["start"]}]
    for entry in header["tensors"]:
        owner = next((path for path in layers if _stem(entry["name"]).startswith(_stem(path) + ".")), None)
        inside = owner is not None and ".structure." in entry["name"]
        rows.append({"name": entry["name"], "structure": layers[owner]["structure"] if inside else "dense",
                     **{key: entry[key] for key in ("shape", "quantization", "coder")},
                     "parameters": math.prod(entry["shape"]), "bytes": entry["length"]})
    return [*rows, {"name": "checksum", "structure": "", "shape": [], "quantization": "", "coder": "sha256",
                    "parameters": 0, "bytes": DIGEST}]


def _stem(name: str) -> str:
    """A tensor's or layer's path without what parametrization adds to it."""
    return name.replace("parametrizations.", "")
