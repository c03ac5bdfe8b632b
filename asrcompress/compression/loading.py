"""loading: the model file, to train on (safetensors, quantizers attached), and one function that reads every file.

Its metadata is one JSON object: `model` says how the dense model is built, and from which config
(`packed/adapters.py`), `compression` is the record of what was done to it (`record.py`). It is one key, "asrcompress",
because safetensors writes several in a random order, and the same model is to be the same file.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from asrcompress.compression import packed, record, state
from asrcompress.compression.packed import adapters, verify
from asrcompress.errors import UserError
from asrcompress.files import atomic, refuse_folder, require_plain_file


def save_model(path: Path | str, model: nn.Module, build: packed.Build | None = None) -> None:
    """Write a model, compressed or not, into a model file; load that again and compare before it gets its name.

    `build(model.config)` makes the dense model where it is neither ours nor Hugging Face's. Errors: UserError where the
    model cannot be rebuilt or comes out different.
    """
    refuse_folder(path)
    description = adapters.describe(model)
    adapters.builder(description, build, str(path))
    metadata = {"model": description, "compression": record.record_config(model)}
    tensors, seen = dict[str, Tensor](), set[int]()
    for name, tensor in state.stored(model).items():
        memory = tensor.untyped_storage().data_ptr()  # safetensors takes no two tensors of the same
        tensors[name] = tensor.clone().contiguous() if memory in seen else tensor.contiguous()
        seen.add(memory)
    with atomic(path) as temporary:
        temporary.write_bytes(serialize(tensors, {"asrcompress": json.dumps(metadata)}))
        verify.same(model, _load_model(temporary, build, str(path)), str(path))


def load(path: Path | str, build: packed.Build | None = None) -> nn.Module:
    """The model of any file of ours, in eval mode: a model file, with or without compressed layers, or a packed file.

    `build(config)` makes the dense model; our own models and Hugging Face's need none. Our own compute in float32, also
    where the file holds them in half precision; others stay as they were saved. Errors: UserError where the file is
    missing, damaged or another one's, and where `build` is missing.
    """
    model = packed.load(path, build) if packed.is_packed(path) else _load_model(path, build, str(path)).eval()
    return model.float() if adapters.is_ours(model) else model


def _load_model(path: Path | str, build: packed.Build | None, where: str) -> nn.Module:
    metadata, tensors = read(path)
    model = adapters.builder(metadata["model"], build, where)()
    record.apply_config(model, metadata["compression"])
    try:
        state.load_stored(model, tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{where} does not hold what its config asks for ({reason}); make it again") from None
    return model


def read(path: Path | str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(metadata, tensors) of a model file; metadata has `model` and `compression`.

    safetensors checks every length before it allocates. Errors: UserError for a file that is missing or no model file.
    """
    require_plain_file(path, "the model file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {})["asrcompress"])
            said = metadata["model"], metadata["model"]["config"], metadata["compression"]
            if not all(isinstance(part, Mapping) for part in said):
                raise ValueError("its metadata are no objects")
            return metadata, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a model file of asrcompress or is damaged ({error}); make it again") from None
