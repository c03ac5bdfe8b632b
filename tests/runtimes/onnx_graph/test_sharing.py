"""Tied weights in device files: made again in the graph, with what they share written once."""

import math

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from asrcompress.compression import modules, structures
from asrcompress.runtimes.onnx_graph import acoustic, builder, parity, sharing
from asrcompress.runtimes.onnx_graph.options import Options
from asrcompress.runtimes.onnx_graph.session import session
from tests.compression.models_of_tests import tied
from tests.runtimes import tiny


@pytest.mark.parametrize("scale", [None, torch.rand(12)])
@pytest.mark.parametrize("options", [{"rank": 0}, {"rank": 3}, {"rank": 3, "diagonal": True}])
@pytest.mark.parametrize("shape", [(12, 7), (12, 12), (12, 7, 3)])
def test_the_graph_makes_the_weight(shape: tuple[int, ...], options: dict, scale: torch.Tensor | None) -> None:
    layer = structures.init("tied", shape, **options)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    g = builder.Graph()
    g.op("Identity", sharing.matrix(g, "layer", layer, scale), name="y")
    proto = g.model([], [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["in", "out"])], {})
    made = layer.dense() if scale is None else structures.Scaled(layer, scale).dense()
    expected = made.detach().reshape(*shape[:2], -1).permute(2, 1, 0).reshape(-1, shape[0])
    np.testing.assert_allclose(session(proto.SerializeToString()).run(None, {})[0], expected, atol=1e-5)


@pytest.mark.parametrize("family", ["tdnn", "conformer"])
@pytest.mark.parametrize("precision", ["float32", "float16", "int8-dynamic"])
def test_what_is_shared_is_written_once(family: str, precision: str) -> None:
    model = tied(tiny.tdnn() if family == "tdnn" else tiny.conformer(), span=2, rank=2).eval()
    groups: dict[int, list[structures.Structure]] = {}
    for layer in modules.structured(model).values():
        groups.setdefault(id(layer.tied_pool()), []).append(layer)
    assert groups and all(len(layers) == 2 for layers in groups.values())
    proto = acoustic.convert(model, Options(keep_small=True, precision=precision))
    written = [one for one in proto.graph.initializer if ".shared" in one.name]
    assert sorted(math.prod(one.dims) for one in written) == sorted(math.prod(layers[0].shape)
                                                                    for layers in groups.values())
    if precision == "int8-dynamic":
        parity.check_quantized(model, proto, parity.random_batches(False), 0.1)
    else:
        parity.check(model, proto, parity.random_batches(False), 1e-4 if precision == "float32" else 0.05)
