"""Multiply-adds of an ONNX file, counted from the shapes that its values have in one run."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from asrcompress.errors import UserError
from asrcompress.runtimes.onnx_graph.session import run, session

# Of each operator that counts: which input holds the matrix or the filters.
PRODUCTS = {"MatMul": 1, "MatMulInteger": 1, "QLinearMatMul": 3, "DynamicQuantizeMatMul": 1, "MatMulIntegerToFloat": 1,
            "Gemm": 1, "QGemm": 3, "FusedMatMul": 1}
CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3}
RECURRENT = ("LSTM", "GRU", "RNN")
OTHERS = ("MatMulNBits", "ConvTranspose", "Einsum")


def macs(path: Path | str, feeds: dict[str, Any]) -> int:
    """Multiply-adds of one run on `feeds`: matrix products, whichever operands the input makes, convolutions and
    recurrent layers, and Einsum of several operands. MatMulNBits, whose matrix is packed, says its width in its
    attributes.

    Errors: UserError for a file that is no ONNX or does not run.
    """
    import onnx

    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf's and the system's share no other base
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as ONNX ({reason}); export it again") from None
    kinds = {*PRODUCTS, *CONVOLUTIONS, *RECURRENT, *OTHERS}
    counted = [node for node in model.graph.node if node.op_type in kinds]
    shapes = shapes_of(model, [name for node in counted for name in (*node.input, *node.output[:1]) if name], feeds)
    return sum(_macs_of(node, shapes) for node in counted)


def _macs_of(node: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    if node.op_type in RECURRENT:  # X (T, N, in), the weights of its inputs and of its state for each direction
        return int(np.prod(shapes[node.input[0]][:2]) * sum(np.prod(shapes[name]) for name in node.input[1:3]))
    if node.op_type == "Einsum":
        equation = next(one.s for one in node.attribute if one.name == "equation").decode()
        return _macs_of_einsum(equation, [shapes[name] for name in node.input])
    if node.op_type == "ConvTranspose":  # each input goes through the filters (in, out, taps) of its channel
        return int(np.prod(shapes[node.input[0]]) * np.prod(shapes[node.input[1]][1:]))
    outputs = int(np.prod(shapes[node.output[0]]))
    attributes = {one.name: one.i for one in node.attribute}
    if node.op_type == "MatMulNBits":
        return outputs * attributes["K"]
    if node.op_type in CONVOLUTIONS:  # each output is a product with one filter
        return outputs * int(np.prod(shapes[node.input[CONVOLUTIONS[node.op_type]]][1:]))
    matrix = shapes[node.input[PRODUCTS[node.op_type]]]
    rows = matrix[-1] if attributes.get("transB") else matrix[-2] if len(matrix) > 1 else matrix[0]
    return outputs * rows


def _macs_of_einsum(equation: str, shapes: list[tuple[int, ...]]) -> int:
    """The product of the sizes of all labels; the axes of an ellipsis count once. One operand alone has no products."""
    sizes: dict[str, int] = {}
    for term, shape in zip(equation.replace(" ", "").split("->")[0].split(","), shapes, strict=True):
        before, dots, after = term.partition("...")
        labels = [*before, *(f"...{i}" for i in range(len(before + after) - len(shape), 0) if dots), *after]
        for label, size in zip(labels, shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    return math.prod(sizes.values()) if len(shapes) > 1 else 0


def shapes_of(model: Any, names: list[str], feeds: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of these values of an ONNX model, run without optimization. Errors: UserError where it cannot run."""
    import onnx

    shapes = {one.name: tuple(one.dims) for one in model.graph.initializer}
    wanted = [name for name in dict.fromkeys(names) if name not in shapes and name not in feeds]
    larger = onnx.ModelProto.FromString(model.SerializeToString())
    there = {one.name for one in larger.graph.output}
    larger.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in there)
    running = session(larger.SerializeToString(), optimize=False)
    values = run(running, wanted, feeds) if wanted else []  # onnxruntime takes no names for all of them
    return shapes | {name: value.shape for name, value in zip(wanted, values, strict=True)} | {
        name: value.shape for name, value in feeds.items()}
