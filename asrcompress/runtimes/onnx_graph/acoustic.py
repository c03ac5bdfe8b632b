"""acoustic: the ONNX graph of an acoustic model, written by hand, as sherpa-onnx's
`OfflineRecognizer.from_zipformer_ctc` takes it. A family is one file that writes its network, listed in `FAMILIES`.

    x (N, T, 80) float32, x_lens (N,) int64 -> log_probs (N, T / 4, vocab) float32, log_probs_len (N,) int64

Values are named after the modules of the torch model: what layer i of a TDNN puts out is `layers.i`, its convolution
with bias `layers.i.conv`; weights are `layers.i.conv.weight`, or `.left` and `.right` and the like where they have a
structure, and so are the products with them.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import onnx
import torch
from onnx import TensorProto, helper
from torch import nn

from asrcompress.compression.folding import fold
from asrcompress.errors import UserError
from asrcompress.files import atomic
from asrcompress.lang.tokens import BLANK, read_symbols, write_symbols
from asrcompress.models.base import AcousticModel
from asrcompress.models.conformer import Conformer
from asrcompress.models.tdnn import TDNN
from asrcompress.runtimes.onnx_graph import conformer, quantized, tdnn
from asrcompress.runtimes.onnx_graph.builder import Graph
from asrcompress.runtimes.onnx_graph.layers import affine
from asrcompress.runtimes.onnx_graph.options import Options


class Family(NamedTuple):
    """How a family's network is written, and the longest utterance that a file of it is made for unless told."""

    network: Callable[[Graph, Any, Options], tuple[str, str]]
    max_seconds: float | None = None


# The scores of attention grow with the square of the length: with 4 heads 144 MB for two minutes, 900 MB for five.
FAMILIES: dict[type, Family] = {TDNN: Family(tdnn.network), Conformer: Family(conformer.network, 120.0)}


def known(model: nn.Module) -> TypeGuard[AcousticModel]:
    """Whether a model has a hand-made graph."""
    return type(model) in FAMILIES


def names() -> str:
    """The families that have a hand-made graph, in words."""
    return " and ".join(family.__name__ for family in FAMILIES)


def convert(model: nn.Module, options: Options = Options()) -> onnx.ModelProto:  # noqa: B008
    """The ONNX model of an acoustic model with any structures; BatchNorm is folded if it is not yet.

    Errors: UserError for another model, one that rounds the inputs of its layers, and a layer of `keep_float` that it
    does not have.
    """
    return convert_with_inputs(model, options)[0]


@torch.no_grad()
def convert_with_inputs(model: nn.Module, options: Options) -> tuple[onnx.ModelProto, dict[str, str]]:
    """`convert`, with its errors; and of each product, in order, the name of the value that it multiplies."""
    model = fold(model).cpu().float()
    _check(model, options)
    assert known(model)
    g = _graph(options)
    y, lens = FAMILIES[type(model)].network(g, model, options)
    y = g.op("LogSoftmax", affine(g, "output", model.output, y, options), axis=-1)
    if options.acoustic_scale != 1:
        y = g.op("Mul", y, g.constant(options.acoustic_scale))
    g.op("Identity", y, name="log_probs")
    g.op("Identity", lens, name="log_probs_len")
    unknown = [glob for glob in options.keep_float if not any(quantized.kept(name, (glob,)) for name in g.inputs)]
    if unknown:
        raise UserError(f"no product is called {unknown[0]}; keep some of {', '.join(g.inputs)} in float")
    return g.model(*_signature(options.batch1, model.config), _metadata(model, options)), g.inputs


def _graph(options: Options) -> Graph:
    if options.precision.startswith("int8"):
        return quantized.Int8(options.keep_float, options.ranges, 7 if options.reduce_range else 8)
    if options.precision == "int4":
        return quantized.Int4(options.keep_float)
    if options.precision == "codebook":
        return quantized.CodebookGraph(options.keep_float, options.entries)
    return Graph(half=options.precision == "float16")


def _check(model: nn.Module, options: Options) -> None:
    if not known(model):
        raise UserError(f"{names()} have hand-made graphs, and this is a {type(model).__name__}; export it for the "
                        "runtime onnxruntime")
    if any(hasattr(hook, "grid") for module in model.modules() for hook in module._forward_pre_hooks.values()):
        raise UserError("the model rounds the inputs of its layers, and a device file does that in its own way; "
                        "compress without --activations, and export with --precision int8-static")
    if (options.ranges is None) == (options.precision == "int8-static"):
        raise UserError("static int8 needs the ranges of calibration, and nothing else does; give --calibrate-set")


def _signature(batch1: bool, config: Mapping[str, Any]) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
    """The inputs and outputs. sherpa-onnx reads the vocabulary's size from the shape of log_probs."""
    batch = 1 if batch1 else "N"
    return ([helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, "T", config["features"]]),
             helper.make_tensor_value_info("x_lens", TensorProto.INT64, [batch])],
            [helper.make_tensor_value_info("log_probs", TensorProto.FLOAT, [batch, "U", config["vocab"]]),
             helper.make_tensor_value_info("log_probs_len", TensorProto.INT64, [batch])])


def _metadata(model: Any, options: Options) -> dict[str, str]:
    """What sherpa-onnx and our own loaders read of a file."""
    found = {"model_type": "zipformer2_ctc", "version": "1", "model_author": "asrcompress",
             "comment": f"{type(model).__name__} with CTC", "subsampling_factor": str(model.subsampling),
             "acoustic_scale": f"{options.acoustic_scale:g}", "precision": options.precision}
    most = options.max_seconds or FAMILIES[type(model)].max_seconds
    return {**found, "max_seconds": f"{most:g}"} if most else found


def write(folder: Path, data: bytes, tokens: Path) -> None:
    """FOLDER/tokens.txt and FOLDER/model.onnx, each whole or not at all; the model comes last."""
    write_symbols(folder / "tokens.txt", sorted(symbols := read_symbols(tokens), key=symbols.__getitem__))
    with atomic(folder / "model.onnx") as temporary:
        temporary.write_bytes(data)


def check_tokens(tokens: Path, vocab: int) -> None:
    """A UserError unless the symbols are those of a model with `vocab` outputs, the blank first."""
    symbols = read_symbols(tokens)
    if len(symbols) != vocab or symbols.get(BLANK) != 0:
        raise UserError(f"{tokens} has {len(symbols)} tokens, and the model {vocab} outputs; give the lang folder that "
                        f"it was trained with, whose first token is {BLANK}")
