"""traced: the ONNX file of any torch model, compressed or not, through `torch.onnx.export`.

The exporter is given a copy of plain modules (`plain`): what quantizers, weight norms and the like make is written as
the values they make; a structure stays a chain of products where that is less work than a product with its weight,
otherwise the weight is rebuilt.
"""

import importlib.util
import io
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from asrcompress.compression.packed.verify import jumps
from asrcompress.compression.parametrization import copy_model
from asrcompress.errors import UserError
from asrcompress.measure import inputs as examples_of
from asrcompress.models.base import AcousticModel
from asrcompress.runtimes.onnx_graph.builder import OPSET
from asrcompress.runtimes.onnx_graph.parity import gap
from asrcompress.runtimes.onnx_graph.plain import plain
from asrcompress.runtimes.onnx_graph.session import run, session

EXPORTERS = ("torchscript", "dynamo")
TOLERANCE = 1e-4  # of outputs, relative to the largest where that is above 1
ACOUSTIC = {"x": {0: "N", 1: "T"}, "x_lens": {0: "N"}}


class Traced(NamedTuple):
    """An ONNX file in memory, the names of its outputs, and inputs of several sizes that it has to take."""

    data: bytes
    examples: list[dict[str, Any]]


@torch.no_grad()
def convert(model: nn.Module, inputs: Any = None, *, dynamic: Mapping[str, Mapping[int, str]] | None = None,
            exporter: str = "torchscript") -> Traced:
    """The ONNX model of `model(*inputs)`, in float32.

    `inputs`: a tensor, a sequence of arguments, or a mapping of keyword arguments; `measure.inputs.example` where none
    are given. Inputs and outputs keep the names of forward's arguments and of the outputs. `dynamic`: the axes of each
    input or output that may have another size, as {"x": {1: "T"}}; of our acoustic models the batch and the time.
    `exporter`: torchscript, or dynamo, which needs onnxscript. Errors: UserError for a model that the exporter does not
    take, and for a name in `dynamic` that is neither an input nor an output.
    """
    if exporter not in EXPORTERS:
        raise UserError(f"there is no exporter '{exporter}'; there are {', '.join(EXPORTERS)}")
    found = examples_of.example(model, 2.0) if inputs is None else examples_of.given(model, inputs)
    arguments = {name: _float(value) for name, value in found.arguments.items()}
    examples = [arguments]
    if isinstance(model, AcousticModel) and dynamic is None:
        dynamic = ACOUSTIC
        examples += [_two_utterances(arguments)]
    if exporter == "dynamo" and importlib.util.find_spec("onnxscript") is None:
        raise UserError("exporter dynamo needs onnxscript, which is not installed; `pip install onnxscript`")
    tensors = {name: value for name, value in arguments.items() if isinstance(value, Tensor)}
    flat = Flat(plain(model), list(tensors), {name: arguments[name] for name in arguments if name not in tensors})
    names = _acoustic(model) or [name for name, _ in flatten(flat.call(*tensors.values()))]
    if unknown := [name for name in dynamic or {} if name not in tensors and name not in names]:
        raise UserError(f"dynamic names '{unknown[0]}', and a {type(model).__name__} has the inputs "
                        f"{', '.join(tensors)} and the outputs {', '.join(names)}; name one of these")
    try:
        with _exporting():
            data = (_by_dynamo if exporter == "dynamo" else _by_torchscript)(flat, tensors, names, dynamic or {})
    except Exception as error:  # the exporters' exceptions share no other base
        other = next(one for one in EXPORTERS if one != exporter)
        raise UserError(f"torch.onnx.export cannot export a {type(model).__name__} ({_first_line(error)}); try "
                        f"exporter={other}, or change the model") from None
    return Traced(_with_metadata(data, model), examples)


@torch.no_grad()
def check(model: nn.Module, traced: Traced, batches: Iterable[Any], tolerance: float = TOLERANCE) -> float:
    """The largest difference of outputs of torch and onnxruntime, relative to the largest output where that is above 1.

    Of a model whose functions jump it is the mean: where a value lies at a jump, rounding decides on its side.
    Errors: UserError where it is above `tolerance`, or an output has another shape.
    """
    running, largest, mean = session(traced.data), 0.0, jumps(model)
    reference = copy_model(model).float().eval()
    taken = {one.name for one in running.get_inputs()}
    for batch in batches:
        arguments = {name: _float(value) for name, value in examples_of.given(model, batch).arguments.items()}
        expected = flatten(reference(**arguments))
        feeds = {name: value.numpy() for name, value in arguments.items() if name in taken}
        for (name, wanted), found in zip(expected, run(running, None, feeds), strict=True):
            if tuple(wanted.shape) != found.shape:
                raise UserError(f"output {name} of the ONNX model has shape {found.shape}, and torch's "
                                f"{tuple(wanted.shape)}: the export fixed the size of some input; export with inputs "
                                "of the size that you need; nothing was written")
            difference = gap(found, numbers := _float(wanted).numpy(), mean)
            largest = max(largest, difference / max(1.0, float(np.abs(numbers).max(initial=0.0))))
            if not largest <= tolerance:
                raise UserError(f"output {name} of the ONNX model differs from torch's by {largest:.3g} of its largest "
                                f"value, more than {tolerance:g}; nothing was written")
    return largest


class Flat(nn.Module):
    """A model whose arguments are tensors in order and whose outputs are a tuple of tensors, as exporters want it."""

    def __init__(self, model: nn.Module, names: Sequence[str], constants: Mapping[str, Any]) -> None:
        super().__init__()
        self.model, self.names, self.constants = model, list(names), dict(constants)

    def call(self, *tensors: Tensor) -> Any:
        """What the model itself returns."""
        return self.model(**dict(zip(self.names, tensors, strict=True)), **self.constants)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor for _, tensor in flatten(self.call(*tensors)))


def flatten(output: Any, name: str = "output") -> list[tuple[str, Tensor]]:
    """(name, tensor) of each tensor in what a model returns: its key in a mapping, output0, output1, ... in a sequence.

    What is no tensor, mapping, list or tuple (a cache of keys and values, say) is left out.
    """
    if isinstance(output, Tensor):
        return [(name, output)]
    if isinstance(output, Mapping):
        return [one for key, value in output.items() for one in flatten(value, str(key))]
    if isinstance(output, list | tuple):
        return [one for i, value in enumerate(output) for one in flatten(value, f"{name}{i}")]
    return []


def _by_torchscript(flat: Flat, tensors: Mapping[str, Tensor], names: list[str],
                    dynamic: Mapping[str, Mapping[int, str]]) -> bytes:
    file = io.BytesIO()
    axes = {name: dict(one) for name, one in dynamic.items()}
    torch.onnx.export(flat, tuple(tensors.values()), file,  # type: ignore[arg-type]
                      input_names=list(tensors), output_names=names,
                      dynamic_axes=axes, opset_version=OPSET, dynamo=False)
    return file.getvalue()


def _by_dynamo(flat: Flat, tensors: Mapping[str, Tensor], names: list[str],
               dynamic: Mapping[str, Mapping[int, str]]) -> bytes:
    sizes = {label: torch.export.Dim(label) for axes in dynamic.values() for label in axes.values()}
    shapes = tuple({axis: sizes[label] for axis, label in dynamic.get(name, {}).items()} for name in tensors)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        torch.onnx.export(flat, tuple(tensors.values()), str(path), input_names=list(tensors), output_names=names,
                          dynamic_shapes=(shapes,) if dynamic else None, opset_version=OPSET, dynamo=True,
                          external_data=False, verbose=False)
        return path.read_bytes()


@contextmanager
def _exporting() -> Iterator[None]:
    """Attention in plain products, and without the exporters' warnings.

    While torch traces, `nn.MultiheadAttention` hands `is_causal` on as a tensor, which its own product refuses.
    """
    product = functional.scaled_dot_product_attention

    def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
                  is_causal: Any = False, **options: Any) -> Tensor:
        return product(query, key, value, attn_mask, dropout_p, bool(is_causal), **options)

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with mock.patch.object(functional, "scaled_dot_product_attention", attention), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _acoustic(model: nn.Module) -> list[str]:
    """The names of an acoustic model's outputs; none for another model."""
    return ["log_probs", "log_probs_len"] if isinstance(model, AcousticModel) else []


def _two_utterances(arguments: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A shorter batch of two, one of them padded, of the inputs x (1, T, features) and x_lens (1,)."""
    x = arguments["x"][:, :-17].expand(2, -1, -1).clone()
    x[1] *= 0.5
    return {"x": x, "x_lens": torch.tensor([x.shape[1], x.shape[1] - 30])}


def _with_metadata(data: bytes, model: nn.Module) -> bytes:
    """The file with what a reader has to know of it: the producer, and of an acoustic model its subsampling."""
    proto = onnx.ModelProto.FromString(data)
    entries = {"model_author": "asrcompress"}
    if isinstance(model, AcousticModel):
        entries |= {"model_type": "ctc", "subsampling_factor": str(model.subsampling)}
    onnx.helper.set_model_props(proto, entries)
    return proto.SerializeToString()


def _float(value: Any) -> Any:
    """Floating-point tensors in float32, anything else as it is."""
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
