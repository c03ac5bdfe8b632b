"""writer: a compressed model into a packed file, which is kept only if it loads again as what was written."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from asrcompress.compression import quantization, record, state
from asrcompress.compression.folding import fold
from asrcompress.compression.packed import adapters, coding, container, reader, verify
from asrcompress.compression.quantization import Quantizer
from asrcompress.errors import UserError
from asrcompress.files import atomic, refuse_folder


@torch.no_grad()
def save(path: Path | str, model: nn.Module, *, coder: str | None = None,
         coder_options: Mapping[str, Any] | None = None, vectors: str | None = None,
         build: adapters.Build | None = None, example: tuple[Any, ...] | None = None) -> nn.Module:
    """Write a model, norms folded, into a packed file; load that again and compare before it gets its name.

    Quantized tensors go through the coder (default: the one of the model's plan; "smallest": for each whichever makes
    it shortest), other tensors of one dimension, such as biases, as `vectors` says ("float32", as they are, "float16",
    or "int8", which statistics of norms never are; one that it cannot hold stays as it is), the rest as they are.
    `build` is what `load` needs for a model that is neither ours nor Hugging Face's: build(model.config) makes the
    dense model, from the dict of its fields where the config is a dataclass. `example`: arguments of the model, whose
    outputs are then compared too; ours are always compared. The model is not touched. Returned is the model that was
    written, in eval mode: what `load` gives, with its quantizers still attached.
    Errors: UserError where the model cannot be rebuilt, or comes out different: then there is no file.
    """
    refuse_folder(path)
    written, order = prepared(model, vectors or record.coder(model)["vectors"])
    builder = adapters.builder(adapters.describe(written), build, str(path))
    chosen = record.coder(model)
    how = (coder or chosen["name"], chosen["options"] if coder_options is None and not coder else coder_options or {})
    header, streams = _packed(written, order, *how)
    with atomic(path) as temporary:
        container.write(temporary, header, streams)
        loaded = reader.read(temporary, builder, Path(path))
        verify.same(written, loaded, str(path), example or adapters.example(written))
        verify.folded(model, written, str(path), example or adapters.example(written))
    return written


@torch.no_grad()
def length(model: nn.Module) -> int:
    """The bytes of the file that `save` would write."""
    chosen = record.coder(model)
    return container.length(*_packed(*prepared(model, chosen["vectors"]), chosen["name"], chosen["options"]))


@torch.no_grad()
def prepared(model: nn.Module, vectors: str) -> tuple[nn.Module, list[str]]:
    """What is written of a model, a copy with its norms folded and its vectors quantized; its tensors in file order."""
    written = fold(model)
    order = [name for name, _ in _stored(written)]
    if vectors != "float32":
        _quantize_vectors(written, vectors)
    return written, order


def _packed(written: nn.Module, order: list[str], coder: str, options: Mapping[str, Any]) -> tuple[bytes, list[bytes]]:
    """The header and the streams of a file."""
    description, tensors = adapters.describe(written), dict(_stored(written))
    table, streams, offset = list[dict[str, Any]](), list[bytes](), 0
    for name in order:
        one = tensors[name]
        entry, stream = coding.plain(name, one) if isinstance(one, Tensor) else coding.encode(one, coder, options)
        table.append({"name": name, **entry, "offset": offset})
        streams.append(stream)
        offset += len(stream)
    said = {key: value for key, value in record.record_config(written).items() if key not in ("quantization", "coder")}
    header = {"model": description, "record": said, "tensors": table}
    return json.dumps(header, separators=(",", ":")).encode(), streams


def _stored(model: nn.Module) -> Iterator[tuple[str, Tensor | Quantizer]]:
    """Every tensor of a model by the name that it has without quantization, as itself or as its quantizer."""
    yield from quantization.attached(model).items()
    inside = _inside_quantizers(model)
    yield from ((name, tensor) for name, tensor in state.stored(model).items() if not name.startswith(inside))


def _quantize_vectors(model: nn.Module, kind: str) -> None:
    """Attach a quantizer of this kind to every tensor of one dimension that has none, in place. One that the kind
    cannot hold (a variance beyond float16, a mask of -inf) stays as it is."""
    inside, buffers = _inside_quantizers(model), dict(model.named_buffers())
    for name, tensor in state.stored(model).items():
        if tensor.dim() == 1 and tensor.is_floating_point() and not name.startswith(inside):
            chosen = "float16" if kind == "int8" and name in buffers else kind
            with suppress(UserError):
                quantization.attach(model, name, quantization.fit(chosen, tensor))


def _inside_quantizers(model: nn.Module) -> tuple[str, ...]:
    """How the names of the tensors begin that quantizers have themselves."""
    return tuple(f"{path}." for path, module in model.named_modules(remove_duplicate=False)
                 if isinstance(module, Quantizer))
