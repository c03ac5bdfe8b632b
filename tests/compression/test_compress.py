import copy

import pytest
import torch
from torch import nn

from asrcompress.compression import Plan, compress
from asrcompress.compression.structures import CannotShrink
from asrcompress.errors import UserError
from tests.compression.models_of_tests import net


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("budget", ["uniform", "global_greedy"])
@pytest.mark.parametrize("size", [0.5, 0.25])
def test_the_model_gets_as_small_as_promised_and_the_report_says_how(budget: str, size: float) -> None:
    model = net(96)
    before = copy.deepcopy(model.state_dict())
    small, report = compress(model, Plan(size=size, budget=budget))
    assert 0.9 * size <= parameters(small) / parameters(model) <= size
    assert sum(row.before - row.after for row in report) == parameters(model) - parameters(small)
    assert [row.path for row in report] == ["convs.0", "convs.1", "convs.2.weight", "output"]
    for row in report:
        if row.structure == "svd":
            assert row.rank and 0 < row.error < 1 and not row.note
        else:
            assert row.after == row.before and row.error == 0 and row.note
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert "layers" not in model.config
    assert set(small.config["layers"]) == {row.path for row in report if row.structure == "svd"}


def test_outputs_are_those_of_the_low_rank_weights_and_train() -> None:
    model, x = net(), torch.randn(2, 16, 20)
    small, report = compress(model, Plan(budget="fixed", size=None, options={"rank": 9}))
    for row in report:
        if row.structure == "svd" and not row.path.endswith(".weight"):
            model.get_submodule(row.path).weight.data.copy_(small.get_submodule(row.path).weight)
    torch.testing.assert_close(small(x), model(x), rtol=1e-4, atol=1e-5)
    small.train()(x).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in small.parameters())


def test_include_and_exclude_are_globs() -> None:
    small, report = compress(net(), Plan(size=0.8, include=("convs.*",), exclude=("*.1", "*.weight")))
    assert [row.path for row in report if row.structure == "svd"] == ["convs.0"]
    assert {row.note for row in report if row.structure == "dense"} == {"not selected"}
    with pytest.raises(UserError, match="selects no layer.*the layers are convs.0, convs.1"):
        compress(net(), Plan(include=("encoder.*",)))


def test_what_does_not_pay_stays_dense_and_is_said() -> None:
    small, report = compress(net(), Plan(budget="fixed", options={"rank": 10}))
    notes = {row.path: row.note for row in report}
    assert notes["convs.0"] == notes["convs.1"] == "" and notes["output"] == "420 numbers are not fewer"
    assert notes["convs.2.weight"].endswith("numbers are not fewer")
    assert type(small.output) is nn.Linear and set(small.config["layers"]) == {"convs.0", "convs.1"}


def test_compressing_twice_keeps_what_is_compressed() -> None:
    once, _ = compress(net(), Plan(budget="fixed", include=("convs.0",), options={"rank": 4}))
    twice, report = compress(once, Plan(budget="fixed", include=("convs.1",), options={"rank": 4}))
    assert set(twice.config["layers"]) == {"convs.0", "convs.1"}
    assert "convs.0" not in {row.path for row in report}


def test_an_impossible_size_or_a_broken_weight_is_a_user_error() -> None:
    with pytest.raises(CannotShrink, match="the smallest is"):
        compress(net(), Plan(size=0.01))
    model = net()
    model.convs[1].weight.data[0, 0, 0] = float("nan")
    with pytest.raises(UserError, match="convs.1: .*not finite"):
        compress(model, Plan(budget="uniform", size=0.6))
    with pytest.raises(UserError, match="not finite"):
        compress(model, Plan(size=0.6))


def test_a_plan_from_the_shipped_configs() -> None:
    from asrcompress.config import compose

    plan = Plan.from_config(compose("compress"))
    raw = {"coder": "raw", "options": {}, "vectors": "float32"}
    assert plan == Plan(options={"unfolding": "best", "multiple": 8}, budget_options={"relative": True}, bits=raw)
    uniform = compose("compress", ["structure=dense", "budget=uniform", "budget.size=1", "exclude=[output]"])
    assert Plan.from_config(uniform) == Plan("dense", 1, "uniform", exclude=("output",), bits=raw)
    energy = compose("compress", ["budget=fixed", "+structure.options.energy=0.9"])
    assert Plan.from_config(energy).options["energy"] == 0.9 and Plan.from_config(energy).size is None


@pytest.mark.parametrize("size", [0.6, 0.4])
def test_a_transformer_layer_that_no_one_here_wrote(size: float) -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
    small, report = compress(model, Plan(size=size))
    assert parameters(small) <= size * parameters(model)
    assert {row.path for row in report} == {"self_attn.in_proj_weight", "self_attn.out_proj", "linear1", "linear2"}
    _runs(small, torch.randn(2, 7, 64))


def test_a_conformer_that_no_one_here_wrote() -> None:
    conformer = pytest.importorskip("torchaudio").models.Conformer
    torch.manual_seed(0)
    model = conformer(input_dim=64, num_heads=4, ffn_dim=128, num_layers=2, depthwise_conv_kernel_size=15)
    small, report = compress(model, Plan(size=0.5, budget="uniform"))
    assert parameters(small) <= 0.5 * parameters(model)
    assert len(report) == 2 * (4 + 2 + 3), "two feed-forwards, attention's two, three convolutions per layer"
    _runs(small, torch.randn(2, 9, 64), torch.tensor([9, 6]))


def _runs(model: nn.Module, *inputs: torch.Tensor) -> None:
    """Finite outputs in training and in inference, and a gradient for every parameter."""
    model.train()
    output = model(*inputs)
    (output[0] if isinstance(output, tuple) else output).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    with torch.no_grad():
        output = model.eval()(*inputs)
    assert torch.isfinite(output[0] if isinstance(output, tuple) else output).all()
