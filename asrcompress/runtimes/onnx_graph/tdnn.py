"""tdnn: the ONNX graph of a TDNN, written by hand, as sherpa-onnx's `OfflineRecognizer.from_zipformer_ctc` takes it.

    x (N, T, 80) float32, x_lens (N,) int64 -> log_probs (N, T / 4, vocab) float32, log_probs_len (N,) int64

Values are named after the modules of the torch model: what layer i puts out is `layers.i`, its convolution with bias
`layers.i.conv`; weights are `layers.i.conv.weight`, or `.left` and `.right` and the like where they have a structure,
and so are the products with them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from torch import nn

from asrcompress.compression.folding import fold
from asrcompress.compression.modules import StructuredConv1d, StructuredLinear
from asrcompress.errors import UserError
from asrcompress.files import atomic
from asrcompress.lang.tokens import BLANK, read_symbols, write_symbols
from asrcompress.models.tdnn import TDNN
from asrcompress.options import require
from asrcompress.runtimes.onnx_graph import activations, chains, quantized
from asrcompress.runtimes.onnx_graph.builder import Graph, Window

FLOAT = ("float32", "float16")
PRECISIONS = (*FLOAT, "int8-dynamic", "int8-static", "int4", "codebook")


@dataclass(frozen=True)
class Options:
    """How a TDNN is written. Errors: UserError for a value out of its range, and for options that exclude each other.

    batch1: one utterance a call, so nothing masks padding. keep_small: hashed weights are made again at load.

    precision: one of `PRECISIONS`; products of float16 and codebook weights are float32. acoustic_scale: a factor on
    log_probs, since the search of sherpa-onnx has no acoustic scale of its own. keep_float: products (globs, or layers)
    that are not quantized but float16. ranges: of the inputs of products, for int8-static. entries: of a codebook.
    """

    batch1: bool = False
    keep_small: bool = False
    precision: str = "float32"
    acoustic_scale: float = 1.0
    keep_float: tuple[str, ...] = ()
    ranges: quantized.Ranges | None = None
    entries: int = 256

    def __post_init__(self) -> None:
        require(self.precision in PRECISIONS, f"export: precision is one of {', '.join(PRECISIONS)}, not "
                f"'{self.precision}'")
        require(self.acoustic_scale > 0, "export: the acoustic scale and the beam are above 0")
        require(2 <= self.entries <= 256, f"a codebook of the device has 2 to 256 entries, not {self.entries}")
        require(not (self.keep_small and self.precision in ("int4", "codebook")), "hashed weights that are made again "
                f"at load cannot be {self.precision}; leave --keep-small away, or take another precision")
        require(not (self.keep_float and self.precision in FLOAT), f"nothing is quantized at precision "
                f"{self.precision}, so no layer can be kept in float")


def convert(model: nn.Module, options: Options = Options()) -> onnx.ModelProto:  # noqa: B008
    """The ONNX model of a TDNN with any structures; BatchNorm is folded if it is not yet.

    Errors: UserError for another model, one that rounds the inputs of its layers, and a layer of `keep_float` that it
    does not have.
    """
    return convert_with_inputs(model, options)[0]


@torch.no_grad()
def convert_with_inputs(model: nn.Module, options: Options) -> tuple[onnx.ModelProto, dict[str, str]]:
    """`convert`, and of each product, in order, the name of the value that it multiplies.

    Errors: UserError for a model that is no TDNN and for a product of `keep_float` that is none of its.
    """
    model = fold(model).cpu().float()
    _check(model, options)
    assert isinstance(model, TDNN)
    g = _graph(options)
    lens, mask = "x_lens", "" if options.batch1 else _mask(g, "x_lens", "x")
    y = _normalized(g, mask)
    for i, stride in enumerate(model.strides):
        y = _layer(g, f"layers.{i}", model.layers[i], g.op("Mul", y, mask) if mask else y, options)
        if stride > 1:
            lens = g.op("Div", g.op("Add", lens, g.integer(stride - 1)), g.integer(stride))
            mask = mask and _mask(g, lens, y)
    y = _affine(g, "output", model.output, _affine(g, "prefinal", model.prefinal, y, options), options)
    y = g.op("LogSoftmax", y, axis=-1)
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
        return quantized.Int8(options.keep_float, options.ranges)
    if options.precision == "int4":
        return quantized.Int4(options.keep_float)
    if options.precision == "codebook":
        return quantized.CodebookGraph(options.keep_float, options.entries)
    return Graph(half=options.precision == "float16")


def _check(model: nn.Module, options: Options) -> None:
    if not isinstance(model, TDNN):
        raise UserError(f"the graph of a TDNN was asked for, and this is a {type(model).__name__}")
    if any(hasattr(hook, "grid") for module in model.modules() for hook in module._forward_pre_hooks.values()):
        raise UserError("the model rounds the inputs of its layers, and a device file does that in its own way; "
                        "compress without --activations, and export with --precision int8-static")
    if (options.ranges is None) == (options.precision == "int8-static"):
        raise UserError("static int8 needs the ranges of calibration, and nothing else does; give --calibrate-set")


def _mask(g: Graph, lens: str, x: str) -> str:
    """(N, T, 1): 1 inside each utterance, 0 past its end; T as in x (N, T, ...)."""
    time = g.op("Squeeze", g.op("Shape", x, start=1, end=2))
    inside = g.op("Less", g.op("Range", g.integer(0), time, g.integer(1)), g.op("Unsqueeze", lens, g.ints(1)))
    return g.op("Unsqueeze", g.op("Cast", inside, to=TensorProto.FLOAT), g.ints(2))


def _normalized(g: Graph, mask: str) -> str:
    """x less its mean over the frames of each utterance."""
    if not mask:
        return g.op("Sub", "x", g.op("ReduceMean", "x", g.ints(1)))
    total = g.op("ReduceSum", g.op("Mul", "x", mask), g.ints(1))
    count = g.op("Cast", g.op("Unsqueeze", "x_lens", g.ints(1, 2)), to=TensorProto.FLOAT)
    return g.op("Sub", "x", g.op("Div", total, count))


def _layer(g: Graph, name: str, layer: Any, x: str, options: Options) -> str:
    """asrcompress.models.tdnn.Layer."""
    y = _affine(g, f"{name}.linear", layer.linear, x, options)
    y = _affine(g, f"{name}.conv", layer.conv, y, options)
    if not layer.bypass:
        return activations.emit(g, layer.activation, y, name)
    y = activations.emit(g, layer.activation, y)
    return g.op("Add", y, g.op("Mul", x, g.constant(layer.bypass)), name=name)


def _affine(g: Graph, name: str, module: Any, x: str, options: Options) -> str:
    """A linear map or convolution with its bias, dense or structured."""
    if isinstance(module, nn.Identity):
        return x
    window = Window()
    if hasattr(module, "stride"):
        window = Window(module.stride[0], int(module.padding[0]), module.dilation[0])
    if isinstance(module, StructuredConv1d | StructuredLinear):
        y = chains.multiply(g, name, module.structure, x, window, options.keep_small)
    else:
        y = g.product(f"{name}.weight", x, module.weight, window)
    if module.bias is None:
        return g.op("Identity", y, name=name)
    return g.op("Add", y, g.bias(f"{name}.bias", module.bias), name=name)


def _signature(batch1: bool, config: Mapping[str, Any]) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
    """The inputs and outputs. sherpa-onnx reads the vocabulary's size from the shape of log_probs."""
    batch = 1 if batch1 else "N"
    return ([helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, "T", config["features"]]),
             helper.make_tensor_value_info("x_lens", TensorProto.INT64, [batch])],
            [helper.make_tensor_value_info("log_probs", TensorProto.FLOAT, [batch, "U", config["vocab"]]),
             helper.make_tensor_value_info("log_probs_len", TensorProto.INT64, [batch])])


def _metadata(model: TDNN, options: Options) -> dict[str, str]:
    return {"model_type": "zipformer2_ctc", "version": "1", "model_author": "asrcompress", "comment": "TDNN with CTC",
            "subsampling_factor": str(model.subsampling), "acoustic_scale": f"{options.acoustic_scale:g}",
            "precision": options.precision}


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
