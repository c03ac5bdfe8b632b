import copy

import pytest
import torch
from torch import nn

from asrcompress.compression import Plan, compress, modules, record
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
    small, report = compress(model, Plan("svd", size, budget=budget))
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
    assert model.config == {"width": 96}
    assert set(record.layers(small)) == {row.path for row in report if row.structure == "svd"}


def test_outputs_are_those_of_the_low_rank_weights_and_train() -> None:
    model, x = net(), torch.randn(2, 16, 20)
    small, report = compress(model, Plan("svd", None, options={"rank": 9}))
    for row in report:
        if row.structure == "svd" and not row.path.endswith(".weight"):
            model.get_submodule(row.path).weight.data.copy_(small.get_submodule(row.path).weight)
    torch.testing.assert_close(small(x), model(x), rtol=1e-4, atol=1e-5)
    small.train()(x).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in small.parameters())


def test_include_and_exclude_are_globs() -> None:
    small, report = compress(net(), Plan("svd", size=0.8, include=("convs.*",), exclude=("*.1", "*.weight")))
    assert [row.path for row in report if row.structure == "svd"] == ["convs.0"]
    assert {row.note for row in report if row.structure == "dense"} == {
        "not selected", "a depthwise convolution stays dense"}
    with pytest.raises(UserError, match="selects no layer.*the layers are convs.0, convs.1"):
        compress(net(), Plan("svd", 0.5, include=("encoder.*",)))


def test_what_does_not_pay_stays_dense_and_is_said() -> None:
    small, report = compress(net(), Plan("svd", None, options={"rank": 10}))
    notes = {row.path: row.note for row in report}
    assert notes["convs.0"] == notes["convs.1"] == "" and notes["output"] == "420 parameters are not fewer"
    assert notes["convs.2.weight"] == "a depthwise convolution stays dense"
    assert type(small.output) is nn.Linear and set(record.layers(small)) == {"convs.0", "convs.1"}


def test_compressing_twice_keeps_what_is_compressed() -> None:
    once, _ = compress(net(), Plan("svd", None, include=("convs.0",), options={"rank": 4}))
    twice, report = compress(once, Plan("svd", None, include=("convs.1",), options={"rank": 4}))
    assert set(record.layers(twice)) == {"convs.0", "convs.1"}
    assert "convs.0" not in {row.path for row in report}


def test_an_impossible_size_or_a_broken_weight_is_a_user_error() -> None:
    with pytest.raises(CannotShrink, match="the smallest is"):
        compress(net(), Plan("svd", size=0.01))
    model = net()
    model.convs[1].weight.data[0, 0, 0] = float("nan")
    with pytest.raises(UserError, match="convs.1: .*not finite"):
        compress(model, Plan("svd", 0.6, budget="uniform"))
    with pytest.raises(UserError, match="not finite"):
        compress(model, Plan("svd", size=0.6))


def test_a_plan_from_the_shipped_configs() -> None:
    from asrcompress.config import compose

    assert Plan.from_config(compose("compress")) == Plan(budget_options={"relative": True, "weights": None})
    uniform = compose("compress", ["structure=svd", "size=0.5", "budget=uniform", "exclude=[output]", "coder=huffman"])
    found = Plan.from_config(uniform)
    assert (found.structure, found.size, found.budget, found.exclude) == ("svd", 0.5, "uniform", ("output",))
    assert (found.budget_options, found.coder, found.vectors) == ({"keep": 0.005}, "huffman", "float16")


def test_the_energy_of_a_layer_does_not_depend_on_the_layers_before_it() -> None:
    """In Kaldi's apply-svd the rank that one layer is given is what the next one is checked against."""
    torch.manual_seed(0)
    flat, steep = nn.Linear(40, 60, bias=False), nn.Linear(50, 30, bias=False)
    with torch.no_grad():
        steep.weight.mul_(torch.logspace(0, -4, 50))
    plan = Plan("svd", None, options={"energy": 0.8})
    alone = [compress(nn.Sequential(layer), plan)[1][0].after for layer in (flat, steep)]
    for order in ([flat, steep], [steep, flat]):
        report = compress(nn.ModuleList(order), plan)[1]
        assert [row.after for row in report] == [alone[0 if layer is flat else 1] for layer in order]
    assert alone[0] / 100 > 2 * alone[1] / 80, "ranks that are alike would hide it"


@pytest.mark.parametrize("size", [0.6, 0.4])
def test_a_transformer_layer_that_no_one_here_wrote(size: float) -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
    small, report = compress(model, Plan("svd", size=size))
    assert parameters(small) <= size * parameters(model)
    assert {row.path for row in report} == {"self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1",
                                            "linear2"}
    _runs(small, torch.randn(2, 7, 64))


@pytest.fixture(params=["conformer", "wav2vec2"])
def foreign(request: pytest.FixtureRequest) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """A model of torchaudio's and inputs for it."""
    models = pytest.importorskip("torchaudio").models
    torch.manual_seed(0)
    if request.param == "conformer":
        model = models.Conformer(input_dim=64, num_heads=4, ffn_dim=128, num_layers=2, depthwise_conv_kernel_size=15)
        return model, (torch.randn(2, 9, 64), torch.tensor([9, 6]))
    model = models.wav2vec2_model(
        extractor_mode="group_norm", extractor_conv_layer_config=[(32, 10, 5), (32, 3, 2)], extractor_conv_bias=False,
        encoder_embed_dim=64, encoder_projection_dropout=0, encoder_pos_conv_kernel=8, encoder_pos_conv_groups=4,
        encoder_num_layers=2, encoder_num_heads=4, encoder_attention_dropout=0, encoder_ff_interm_features=128,
        encoder_ff_interm_dropout=0, encoder_dropout=0, encoder_layer_norm_first=False, encoder_layer_drop=0,
        aux_num_out=24)
    return model, (torch.randn(2, 400), torch.tensor([400, 310]))


@pytest.mark.parametrize("structure", ["svd", "tensor_train", "circulant", "multi_hash"])
def test_models_that_no_one_here_wrote(foreign: tuple[nn.Module, tuple[torch.Tensor, ...]], structure: str) -> None:
    model, inputs = foreign
    small, report = compress(model, Plan(structure, 0.5, budget="uniform"))
    assert 0.25 * parameters(model) < parameters(small) <= 0.5 * parameters(model)
    assert sum(row.before - row.after for row in report) == parameters(model) - parameters(small)
    rows = {row.path: row for row in report}
    expected = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv1d):
            expected[path if path in rows else f"{path}.weight"] = module.weight
        if isinstance(module, nn.MultiheadAttention):
            expected[f"{path}.in_proj_weight"] = module.in_proj_weight
    assert rows.keys() == expected.keys()
    if type(model).__name__ == "Conformer":
        assert len(report) == 2 * (4 + 2 + 3), "two feed-forwards, attention's two, three convolutions per layer"
    twin = copy.deepcopy(model)  # dense, with the weights that the structures stand for
    for path, layer in modules.structured(small).items():
        name = path if path in dict(twin.named_parameters()) else f"{path}.weight"
        target = twin.get_parameter(name)
        target.data.copy_(layer.dense().detach().reshape(target.shape))
    large = [row for row in report if row.before >= 2048]
    assert all(row.structure == structure or row.note == "WeightNorm makes it" for row in large) and len(large) > 8
    with torch.no_grad():
        torch.testing.assert_close(small.eval()(*inputs)[0], twin.eval()(*inputs)[0], rtol=1e-3, atol=1e-4)
    _runs(small, *inputs)
    _learns(small, *inputs)


def _learns(model: nn.Module, *inputs: torch.Tensor) -> None:
    """A step of an optimizer changes every structure and lowers the loss."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model.train()
    target = torch.randn(model(*inputs)[0].shape, generator=torch.Generator().manual_seed(1))
    before = {path: layer.dense().detach().clone() for path, layer in modules.structured(model).items()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    losses = []
    for _ in range(2):
        loss = (model(*inputs)[0] - target).square().mean()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        if len(losses) == 1:
            optimizer.step()
    assert losses[1] < losses[0]
    assert before and not any(torch.equal(layer.dense(), before[path])
                              for path, layer in modules.structured(model).items())


def test_a_copy_that_is_compressed_further_leaves_the_first_as_it_was() -> None:
    attention = nn.MultiheadAttention(16, 2, kdim=24, vdim=24, batch_first=True).eval()
    once, _ = compress(attention, Plan("svd", None, include=("q_proj_weight",), options={"rank": 4}))
    q, k = torch.randn(1, 3, 16), torch.randn(1, 5, 24)
    wanted = once(q, k, k)[0].detach()
    twice, report = compress(once, Plan("svd", None, include=("k_proj_weight",), options={"rank": 4}))
    assert torch.equal(once(q, k, k)[0], wanted)
    assert set(modules.structured(twice)) == {"q_proj_weight", "k_proj_weight"}
    assert "q_proj_weight" not in {row.path for row in report}


def _runs(model: nn.Module, *inputs: torch.Tensor) -> None:
    """Finite outputs in training and in inference, and a gradient for every parameter."""
    model.train()
    output = model(*inputs)
    (output[0] if isinstance(output, tuple) else output).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    with torch.no_grad():
        output = model.eval()(*inputs)
    assert torch.isfinite(output[0] if isinstance(output, tuple) else output).all()


def test_a_model_whose_weights_are_all_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was said that no tensor is selected."""
    model = nn.Sequential(nn.Embedding(20, 8))
    small, report = compress(model, quantization="int8", embeddings="int4")
    assert [(row.path, row.quantization) for row in report] == [("0.weight", "int4")]
    assert isinstance(model[0].weight, nn.Parameter) and not torch.equal(small[0].weight, model[0].weight)
    with pytest.raises(UserError, match="no tensor is selected"):
        compress(model, quantization="int8", embeddings="float32")
