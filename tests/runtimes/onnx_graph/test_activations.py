"""Every activation function of our models, as onnxruntime computes it, against its formula."""

import copy
import io

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from scipy import special, stats
from torch import nn

from asrcompress.errors import UserError
from asrcompress.models._lma import LMA, ContinuousLMA
from asrcompress.models.tdnn import PNorm
from asrcompress.runtimes.onnx_graph import acoustic, activations, parity, traced
from asrcompress.runtimes.onnx_graph.builder import Graph
from asrcompress.runtimes.onnx_graph.session import session
from tests.runtimes import tiny

X = np.random.default_rng(0).normal(0, 3, (2, 5, 12)).astype(np.float32)


def computed(activation: nn.Module, channels: int = 12) -> np.ndarray:
    """What the nodes make of X."""
    g, info = Graph(), onnx.helper.make_tensor_value_info
    activations.emit(g, activation, "x", "y")
    signature = [[info(name, TensorProto.FLOAT, ["N", "T", size])] for name, size in (("x", 12), ("y", channels))]
    proto = g.model(*signature, {})
    return session(proto.SerializeToString()).run(None, {"x": X})[0]


def test_every_function_is_its_formula() -> None:
    np.testing.assert_array_equal(computed(nn.ReLU()), np.maximum(X, 0))
    np.testing.assert_allclose(computed(nn.SiLU()), X * special.expit(X), atol=1e-6)
    norms = np.linalg.norm(X.reshape(2, 5, 4, 3), axis=3) - stats.chi(3).mean()
    np.testing.assert_allclose(computed(PNorm(3), 4), norms, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", [LMA, ContinuousLMA])
@pytest.mark.parametrize("segments", [2, 8])
@pytest.mark.filterwarnings("ignore:Converting a tensor")
def test_segments_are_those_of_torch(form: type[LMA], segments: int) -> None:
    torch.manual_seed(0)
    module = form(segments).eval()
    torch.nn.init.normal_(module.change)
    module.mu.fill_(0.4)
    module.sigma.fill_(1.7)
    wanted = module(torch.from_numpy(X)).detach().numpy()
    assert np.abs(wanted - np.maximum(X, 0)).max() > 1
    np.testing.assert_allclose(computed(module), wanted, atol=1e-5)
    file = io.BytesIO()
    torch.onnx.export(module, (torch.from_numpy(X),), file, input_names=["x"], opset_version=18, dynamo=False)
    np.testing.assert_allclose(session(file.getvalue()).run(None, {"x": X})[0], wanted, atol=1e-5)
    kinds = {node.op_type for node in onnx.ModelProto.FromString(file.getvalue()).graph.node}
    assert not kinds & {"Gather", "GatherElements", "ScatterElements"}  # nothing is looked up


def test_an_unknown_function_is_one_sentence() -> None:
    with pytest.raises(UserError, match="no nodes for the activation Mish; export with inputs"):
        activations.emit(Graph(), nn.Mish(), "x")


def test_a_net_that_jumps_is_compared_by_the_mean() -> None:
    """Borders that are a little elsewhere move a few values over a jump: few outputs differ, but those by much."""
    net = tiny.tdnn(activation="lma")
    batches, moved = parity.random_batches(False), acoustic.convert(shifted(net, 1e-4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LMA, "jumps", False)
        with pytest.raises(UserError, match="differ from torch's"):
            parity.check(net, moved, batches, 1e-2)
    assert "on average" in parity.agreement(net, moved, batches, "float32")
    assert traced.check(net, traced.Traced(moved.SerializeToString(), []), batches, 1e-3) > 0
    with pytest.raises(UserError, match="differ from torch's"):
        parity.check(net, acoustic.convert(shifted(net, 0.5)), batches, 1e-2)


def shifted(net: nn.Module, by: float) -> nn.Module:
    """A copy whose borders lie elsewhere."""
    moved = copy.deepcopy(net)
    for module in moved.modules():
        if isinstance(module, LMA):
            module.mu += by
    return moved
