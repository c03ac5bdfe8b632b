from pathlib import Path

import numpy as np
import onnx as onnx_package
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from asrcompress.compression import structures
from asrcompress.compression.structures.hashing import hashed
from asrcompress.runtimes.onnx_graph import acoustic, builder, hashing, parity
from asrcompress.runtimes.onnx_graph.options import Options
from asrcompress.runtimes.onnx_graph.session import session
from tests.runtimes import tiny


def rebuilt(layer: hashed.Hashed, scale: torch.Tensor | None = None) -> np.ndarray:
    """The weight (taps x in, out) that the graph makes."""
    g = builder.Graph()
    g.op("Identity", hashing.matrix(g, "layer", layer, scale), name="y")
    proto = g.model([], [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["in", "out"])], {})
    return session(proto.SerializeToString()).run(None, {})[0]


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("sign", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (13, 7), (30, 41, 3), (128, 96, 3)])
@pytest.mark.parametrize("seed", [0, 2**40 + 5])
def test_the_table_is_made_again_bit_for_bit(shape: tuple[int, ...], balanced: bool, sign: bool, seed: int) -> None:
    layer = structures.init("hashed", shape, 1 if shape == (1, 1) else 0.2, seed, balanced=balanced, sign=sign)
    kernel = layer.dense().detach().reshape(*shape[:2], -1)
    assert np.array_equal(rebuilt(layer), kernel.permute(2, 1, 0).reshape(-1, shape[0]))
    scale = torch.rand(shape[0])
    scaled = structures.Scaled(layer, scale).dense().detach().reshape(*shape[:2], -1)
    assert np.array_equal(rebuilt(layer, scale), scaled.permute(2, 1, 0).reshape(-1, shape[0]))


def test_large_pools_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "PIECE", 50)
    layer = structures.init("hashed", (40, 30), 0.2)
    layer.indices = hashed.balanced_indices(layer.seed, 1200, layer.buckets, piece=50)
    assert np.array_equal(rebuilt(layer), layer.dense().detach().T)


def test_the_file_stays_small_and_the_session_holds_the_weight(tmp_path: Path) -> None:
    model = tiny.tdnn(stack=[*tiny.STACK[:1], {"dim": 256, "taps": 3, "stride": 2}, {"dim": 256, "taps": 3}])
    layer = structures.init("hashed", (256, 256, 3), 0.05)
    from asrcompress.compression import modules

    modules.replace_layer(model, "layers.2.conv", structures.Scaled(layer, torch.rand(256)))
    small, large = (acoustic.convert(model.eval(), Options(keep_small=keep)) for keep in (True, False))
    assert large.ByteSize() - small.ByteSize() > 0.9 * 4 * 256 * 256 * 3
    parity.check(model, small, parity.random_batches(False), 1e-4)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "folded.onnx"), 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    onnxruntime.InferenceSession(small.SerializeToString(), options, providers=["CPUExecutionProvider"])
    folded = onnx_package.load(str(tmp_path / "folded.onnx"))
    assert not {"BitShift", "BitwiseXor", "Gather"} & {node.op_type for node in folded.graph.node}
