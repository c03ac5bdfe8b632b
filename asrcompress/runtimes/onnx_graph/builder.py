"""An ONNX graph in the making: values go by name, constants are written once."""

from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor

OPSET = 18  # the first with BitwiseXor
IR_VERSION = 9
END = 2**62  # of a slice that has no end


class Window(NamedTuple):
    """How a convolution goes over time."""

    stride: int = 1
    padding: int = 0
    dilation: int = 1


POINT = Window()


class Graph:
    """Nodes and initializers. `half` stores weights in float16; they are float32 again once a session is created.

    Everything lies as (N, T, channels): a convolution is its input's frames side by side, times a matrix. That is as
    fast as onnxruntime's convolution, and dynamic int8 and 4-bit products exist for matrices.
    """

    def __init__(self, half: bool = False) -> None:
        self.half = half
        self.inputs: dict[str, str] = {}  # of products: the value that each multiplies, by its name
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._constants: dict[tuple[Any, ...], str] = {}
        self._shared: dict[Any, str] = {}
        self._count = 0

    def op(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Add a node; the name of what it puts out."""
        name = name or self._next(kind)
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def ops(self, kind: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node that puts out `count` values; their names."""
        name = self._next(kind)
        names = [f"{name}.{i}" for i in range(count)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=name, **attributes))
        return names

    def _next(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{self._count}"

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """A small constant; equal ones are one initializer."""
        array = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self._next("constant")
            self.initializers.append(numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def ints(self, *values: int) -> str:
        """A vector of int64."""
        return self.constant(values, np.int64)

    def integer(self, value: int) -> str:
        """A scalar of int64, modulo 2^64."""
        return self.constant((value + 2**63) % 2**64 - 2**63, np.int64)

    def weight(self, name: str, weight: Tensor) -> str:
        """A trained tensor of any shape, under its name."""
        array = weight.detach().to(torch.float16 if self.half else torch.float32).contiguous().numpy()
        stored = f"{name}.float16" if self.half else name
        self.initializers.append(numpy_helper.from_array(array, stored))
        return self.op("Cast", stored, name=name, to=onnx.TensorProto.FLOAT) if self.half else name

    def shared(self, name: str, owner: Any, weight: Tensor) -> str:
        """`weight` of what several layers have, `owner`: written once, under the name that the first gives it."""
        if owner not in self._shared:
            self._shared[owner] = self.weight(name, weight)
        return self._shared[owner]

    def bias(self, name: str, bias: Tensor) -> str:
        """A trained vector, in float32."""
        self.initializers.append(numpy_helper.from_array(bias.detach().float().numpy(), name))
        return name

    def frames(self, x: str, taps: int = 1, window: Window = POINT, zero: str = "") -> list[str]:
        """(N, T, C) -> what each tap sees, (N, T', C) each. `zero` is the value that pads x, where it is not 0."""
        if window.padding:
            x = self.op("Pad", x, self.ints(0, window.padding, 0, 0, window.padding, 0), *([zero] if zero else []))
        if taps == window.stride == 1:
            return [x]
        starts = [tap * window.dilation for tap in range(taps)]
        ends = [start - starts[-1] or END for start in starts]
        return [self.op("Slice", x, self.ints(start), self.ints(end), self.ints(1), self.ints(window.stride))
                for start, end in zip(starts, ends, strict=True)]

    def spliced(self, x: str, taps: int = 1, window: Window = POINT, zero: str = "") -> str:
        """(N, T, C) -> (N, T', taps x C)."""
        frames = self.frames(x, taps, window, zero)
        return frames[0] if taps == 1 else self.op("Concat", *frames, axis=2)

    def product(self, name: str, x: str, weight: Tensor, window: Window = POINT) -> str:
        """(N, T, in) -> (N, T', out), for a matrix (out, in) or a kernel (out, in, taps)."""
        kernel = weight if weight.dim() == 3 else weight.unsqueeze(2)
        matrix = kernel.permute(2, 1, 0).reshape(-1, kernel.shape[0])
        self.inputs[name] = x
        return self.op("MatMul", self.spliced(x, kernel.shape[2], window), self.weight(name, matrix))

    def rebuilt(self, name: str, x: str, matrix: str, weight: Tensor, window: Window = POINT) -> str:
        """`product` with a matrix (taps x in, out) that the session makes when it is created, equal to the weight."""
        self.inputs[name] = x
        return self.op("MatMul", self.spliced(x, weight.shape[2] if weight.dim() == 3 else 1, window), matrix)

    def model(self, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto],
              metadata: dict[str, str]) -> onnx.ModelProto:
        """The checked model."""
        graph = helper.make_graph(self.nodes, "asrcompress", inputs, outputs, self.initializers)
        domains = sorted({node.domain for node in self.nodes} - {""})
        opsets = [helper.make_opsetid("", OPSET), *(helper.make_opsetid(domain, 1) for domain in domains)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="asrcompress")
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model, full_check=True)
        return model
