"""One ONNX file of a TDNN, as sherpa-onnx's `OfflineRecognizer.from_zipformer_ctc` takes it.

    x (N, T, 80) float32, x_lens (N,) int64 -> log_probs (N, T / 4, vocab) float32, log_probs_len (N,) int64

Values are named after the modules of the torch model: what layer i puts out is `layers.i`, its convolution with bias
`layers.i.conv`; weights are `layers.i.conv.weight`, or `.left` and `.right` and the like where they have a structure.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from torch import nn

from asrcompress.compression.folding import fold
from asrcompress.compression.layers import StructuredConv1d, StructuredLinear
from asrcompress.errors import UserError
from asrcompress.export import structures
from asrcompress.export.graph import Graph, Window
from asrcompress.files import atomic
from asrcompress.lang.tokens import BLANK, read_symbols, write_symbols
from asrcompress.models.tdnn import TDNN, PNorm

FEATURES, SUBSAMPLING, BEAM = 80, 4, 16.0  # sherpa-onnx takes all three for granted


@dataclass(frozen=True)
class Options:
    """batch1: one utterance a call, so nothing masks padding. keep_small: hashed weights are made again at load.

    precision: how weights are stored, float32 or float16; products are float32. acoustic_scale: a factor on log_probs,
    since the search of sherpa-onnx has no acoustic scale of its own.
    """

    batch1: bool = False
    keep_small: bool = False
    precision: str = "float32"
    acoustic_scale: float = 1.0


@torch.no_grad()
def convert(model: nn.Module, options: Options = Options()) -> onnx.ModelProto:  # noqa: B008
    """The ONNX model of a TDNN with any structures; BatchNorm is folded if it is not yet."""
    model = fold(model).cpu().float()
    _check(model, options)
    assert isinstance(model, TDNN)
    g = Graph(half=options.precision == "float16")
    lens, mask = "x_lens", "" if options.batch1 else _mask(g, "x_lens", "x")
    y = _normalised(g, mask)
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
    return g.model(*_signature(options.batch1, model.config["vocab"]), _metadata(model, options))


def _check(model: Any, options: Options) -> None:
    if not isinstance(model, TDNN):
        raise UserError(f"only TDNN models can be exported to ONNX, and this is a {type(model).__name__}")
    if (model.config["features"], model.subsampling) != (FEATURES, SUBSAMPLING):
        raise UserError(f"sherpa-onnx wants {FEATURES} features and a subsampling of {SUBSAMPLING}, and this model has "
                        f"{model.config['features']} and {model.subsampling}; train one with those")
    if options.precision not in ("float32", "float16") or not options.acoustic_scale > 0:
        raise UserError("export: precision is float32 or float16, and the acoustic scale and the beam are above 0")


def _mask(g: Graph, lens: str, x: str) -> str:
    """(N, T, 1): 1 inside each utterance, 0 past its end; T as in x (N, T, ...)."""
    time = g.op("Squeeze", g.op("Shape", x, start=1, end=2))
    inside = g.op("Less", g.op("Range", g.integer(0), time, g.integer(1)), g.op("Unsqueeze", lens, g.ints(1)))
    return g.op("Unsqueeze", g.op("Cast", inside, to=TensorProto.FLOAT), g.ints(2))


def _normalised(g: Graph, mask: str) -> str:
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
    if isinstance(layer.activation, PNorm):
        groups = g.op("Reshape", y, g.ints(0, 0, -1, layer.activation.size))
        squares = g.op("ReduceSumSquare", groups, g.ints(3), keepdims=0)
        return g.op("Sqrt", g.op("Add", squares, g.constant(1e-8)), name=name)
    if not layer.bypass:
        return g.op("Relu", y, name=name)
    return g.op("Add", g.op("Relu", y), g.op("Mul", x, g.constant(layer.bypass)), name=name)


def _affine(g: Graph, name: str, module: Any, x: str, options: Options) -> str:
    """A linear map or convolution with its bias, dense or structured."""
    if isinstance(module, nn.Identity):
        return x
    window = Window()
    if hasattr(module, "stride"):
        window = Window(module.stride[0], int(module.padding[0]), module.dilation[0])
    if isinstance(module, StructuredConv1d | StructuredLinear):
        y = structures.multiply(g, name, module.structure, x, window, options.keep_small)
    else:
        y = g.product(f"{name}.weight", x, module.weight, window)
    if module.bias is None:
        return g.op("Identity", y, name=name)
    return g.op("Add", y, g.bias(f"{name}.bias", module.bias), name=name)


def _signature(batch1: bool, vocab: int) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
    """The inputs and outputs. sherpa-onnx reads the vocabulary's size from the shape of log_probs."""
    batch = 1 if batch1 else "N"
    return ([helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, "T", FEATURES]),
             helper.make_tensor_value_info("x_lens", TensorProto.INT64, [batch])],
            [helper.make_tensor_value_info("log_probs", TensorProto.FLOAT, [batch, "U", vocab]),
             helper.make_tensor_value_info("log_probs_len", TensorProto.INT64, [batch])])


def _metadata(model: TDNN, options: Options) -> dict[str, str]:
    return {"model_type": "zipformer2_ctc", "version": "1", "model_author": "asrcompress", "comment": "TDNN with CTC",
            "subsampling_factor": str(model.subsampling), "acoustic_scale": f"{options.acoustic_scale:g}"}


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
