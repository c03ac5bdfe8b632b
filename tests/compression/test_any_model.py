"""Models that people have: compress, save and load give the same outputs, or the report says what stays dense."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from asrcompress.compression import Plan, compress, load, modules, quantization, record, save, state
from asrcompress.errors import UserError

WAYS: list[dict[str, Any]] = [{"structure": "svd", "size": 0.7}, {"quantization": "int8"},
                              {"structure": "svd", "size": 0.7, "quantization": "codebook"}]


class Causal(nn.Conv1d):
    """A convolution that looks back only: as many frames out as in."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(input, (self.kernel_size[0] - 1, 0)))


class Gated(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * torch.sigmoid(input.sum(-1, keepdim=True))


class Tied(nn.Module):
    """An embedding and an output with one weight, two layers with another, and a layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.output = nn.Embedding(30, 16), nn.Linear(16, 30, bias=False)
        self.output.weight = self.embedding.weight
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)
        self.second.weight = self.first.weight
        self.twice = nn.Linear(16, 16)
        self.again = self.twice

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first(self.embedding(x)).relu()).relu()
        return self.output(self.again(self.twice(y).relu()))


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.output = nn.LSTM(8, 12, 2, bidirectional=True, batch_first=True), nn.Linear(24, 600)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.lstm(x)[0])


def normed(norm: Callable[..., nn.Module]) -> nn.Module:
    return nn.Sequential(norm(nn.Conv1d(8, 12, 3, padding=1)), nn.ReLU(), nn.Conv1d(12, 12, 3, padding=1))


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "causal": (lambda: nn.Sequential(Causal(8, 12, 5), nn.ReLU(), Causal(12, 12, 5)), lambda: torch.randn(2, 8, 20)),
    "gated": (lambda: nn.Sequential(Gated(16, 16), Gated(16, 12)), lambda: torch.randn(3, 16)),
    "tied": (Tied, lambda: torch.randint(30, (2, 7))),
    "lstm": (Tagger, lambda: torch.randn(2, 7, 8)),
    "weight_norm hook": (lambda: normed(nn.utils.weight_norm), lambda: torch.randn(2, 8, 20)),
    "weight_norm": (lambda: normed(parametrizations.weight_norm), lambda: torch.randn(2, 8, 20)),
    "spectral_norm hook": (lambda: normed(nn.utils.spectral_norm), lambda: torch.randn(2, 8, 20)),
    "spectral_norm": (lambda: normed(parametrizations.spectral_norm), lambda: torch.randn(2, 8, 20)),
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose1d(8, 12, 4, 2), nn.Conv1d(12, 12, 3)),
                   lambda: torch.randn(2, 8, 20)),
    "root": (lambda: nn.Linear(16, 24), lambda: torch.randn(3, 16)),
    "attention": (lambda: nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), lambda: torch.randn(2, 7, 16)),
}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_is_loaded_is_what_was_compressed(name: str, way: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, inputs = MODELS[name]
    model, x = make(), inputs()
    model.eval()(x).square().mean().backward()  # leaves weights with graphs in hooks and recurrent layers
    wanted = model(x).detach()
    small, report = compress(model, **way)
    y = small.eval()(x).detach()
    assert y.shape == wanted.shape and torch.isfinite(y).all()
    assert 0.1 * wanted.norm() < y.norm() < 3 * wanted.norm() and not torch.equal(y, wanted)
    for row in report:
        assert (row.structure == way.get("structure", "dense")) or row.note or "structure" not in way
        assert row.error < 1.0
    for file in ("m.packed", "m.safetensors"):
        save(tmp_path / file, small, build=lambda config: make())
        again = load(tmp_path / file, lambda config: make())
        torch.testing.assert_close(again(x), y, rtol=1e-5, atol=1e-6)
        assert len(state.stored(again)) == len({id(t) for t in again.state_dict(keep_vars=True).values()})
        assert state.ties(again) == state.ties(small)
    assert torch.equal(model(x), wanted), "the model itself is not touched"


def test_subclasses_keep_their_forward_and_exact_types_are_replaced() -> None:
    """A causal convolution came back with 16 frames for 20, a gated Linear lost its gate."""
    model = nn.Sequential(Causal(8, 12, 5), nn.Conv1d(12, 12, 3))
    small, report = compress(model, "svd", rank=6, rank_multiple=1)
    assert [row.path for row in report] == ["0.weight", "1"]
    assert isinstance(small[0], Causal) and isinstance(small[1], modules.StructuredConv1d)
    gated = Gated(16, 16)
    exact, _ = compress(nn.Sequential(gated), "tensor_train", size=0.9)
    dense = copy.deepcopy(gated)
    dense.weight.data.copy_(modules.structured(exact)["0.weight"].dense())
    x = torch.randn(3, 16)
    torch.testing.assert_close(exact(x), dense(x))


def test_hooks_and_modes_and_frozen_parameters_stay() -> None:
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16))
    model[0].requires_grad_(False)
    model[1].bias.requires_grad_(False)
    seen: list[str] = []
    for index, layer in enumerate(model):
        layer.register_forward_hook(lambda *_, index=index: seen.append(f"after {index}"))
        layer.register_forward_pre_hook(lambda *_, index=index, **__: seen.append(f"before {index}"), with_kwargs=True)
    model[1].eval()
    for way in ({"structure": "svd", "size": 0.7}, {"quantization": "int8"}, {"structure": "multi_hash", "size": 0.7}):
        small, _ = compress(model, **way)
        seen.clear()
        small(torch.randn(2, 16)).sum().backward()
        assert seen == [f"{when} {index}" for index in range(3) for when in ("before", "after")]
        assert [layer.training for layer in small] == [True, False, True]
        assert not small[1].bias.requires_grad and small[2].bias.requires_grad
        assert all(p.grad is not None for p in small[2].parameters())
        own = [p for name, p in small[0].named_parameters() if "pool" not in name]
        assert own and not any(p.requires_grad for p in own)
    dense = quantization.materialize(compress(model, quantization="int8")[0])
    assert not dense[0].weight.requires_grad and dense[1].weight.requires_grad


def test_tied_weights_stay_one_with_every_quantization() -> None:
    """They came untied: 1,600 parameters became 3,300, and the file could not be loaded."""
    model = Tied()
    for name in quantization.names():
        small, _ = compress(model, quantization=name)
        assert small.first.weight is not model.first.weight
        assert state.ties(small) == {"output.weight": "embedding.weight", "second.weight": "first.weight"}
        plain = quantization.materialize(small)
        assert plain.output.weight is plain.embedding.weight and plain.second.weight is plain.first.weight
        assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in model.parameters())


def test_a_tie_that_build_does_not_make_is_made_and_one_too_many_is_undone(tmp_path: Path) -> None:
    def untied(config: Any) -> nn.Module:
        model = Tied()
        model.second.weight = nn.Parameter(torch.randn(16, 16))
        return model

    small, _ = compress(Tied(), quantization="int8")
    save(tmp_path / "m.packed", small, build=untied)
    again = load(tmp_path / "m.packed", untied)
    assert again.second.weight is again.first.weight
    apart, _ = compress(untied({}), quantization="int8")
    save(tmp_path / "m.packed", apart, build=lambda config: Tied())
    again, x = load(tmp_path / "m.packed", lambda config: Tied()), torch.randint(30, (2, 7))
    assert again.second.weight is not again.first.weight
    torch.testing.assert_close(again(x), apart.eval()(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
def test_models_keep_their_dtype(dtype: torch.dtype, way: dict[str, Any], tmp_path: Path) -> None:
    def build(config: Any = None) -> nn.Module:
        return nn.Sequential(nn.Conv1d(8, 16, 3), nn.ReLU(), nn.Conv1d(16, 16, 3), nn.BatchNorm1d(16))

    torch.manual_seed(0)
    model, x = build().to(dtype).eval(), torch.randn(2, 8, 12).to(dtype)
    small, _ = compress(model, **way)
    for file in ("m.packed", "m.safetensors"):
        save(tmp_path / file, small, build=build)
        again = load(tmp_path / file, build)
        assert again(x).dtype == dtype
        torch.testing.assert_close(again(x), small.eval()(x), rtol=1e-2, atol=1e-2)
        assert {t.dtype for t in again.buffers() if t.is_floating_point() and t.numel() == 16} == {dtype}


def test_config_set_after_compress_changes_nothing(tmp_path: Path) -> None:
    """Such a file could not be loaded: what was compressed stood in the config."""
    build = lambda config: nn.Sequential(nn.Linear(int(config["n"]), 16))  # noqa: E731
    small, _ = compress(build({"n": 16}), "svd", size=0.7, quantization="int8")
    small.config = {"n": 16}  # type: ignore[assignment]
    for file in ("m.packed", "m.safetensors"):
        save(tmp_path / file, small, build=build)
        again, x = load(tmp_path / file, build), torch.randn(2, 16)
        torch.testing.assert_close(again(x), small(x))
    assert set(record.record_config(again)["layers"]) == {"0"}


def test_what_cannot_be_compressed_is_one_sentence() -> None:
    with torch.device("meta"):
        empty = nn.Linear(4, 4)
    for model, said in ((empty, "meta device"), (nn.Sequential(nn.LazyLinear(4)), "has no shape yet"),
                        (torch.jit.script(nn.Linear(4, 4)), "TorchScript")):
        with pytest.raises(UserError, match=said):
            compress(model, quantization="int8")
    with pytest.raises(UserError, match="that changes nothing"):
        compress(nn.Linear(4, 4))
    with pytest.raises(UserError, match="a Plan says everything itself"):
        compress(nn.Linear(4, 4), Plan("svd"), size=0.5)
    with pytest.raises(UserError, match="structure svd has no option 'rnk'; did you mean 'rank'"):
        compress(nn.Linear(4, 4), "svd", rnk=3)
    with pytest.raises(UserError, match="coder range has no option 'context'"):
        Plan(coder="range", coder_options={"context": True})


def test_the_report_says_what_quantization_costs() -> None:
    """Its error was 0 whatever a quantization did."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64))
    coarse, fine = (compress(model, structure="dense", quantization=name)[1][0] for name in ("int4", "int8"))
    assert (coarse.quantization, coarse.structure, coarse.after) == ("int4", "dense", 4096)
    assert 0.02 < coarse.error < 0.2 and 0.001 < fine.error < coarse.error / 4


@pytest.mark.parametrize("name", ["whisper", "wav2vec2", "wav2vec2 layer norm"])
def test_hugging_face_models_need_no_build(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if name == "whisper":
        config = transformers.WhisperConfig(
            vocab_size=60, num_mel_bins=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=48, d_model=32, max_source_positions=20,
            max_target_positions=12, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1)
        model: Any = transformers.WhisperForConditionalGeneration(config).eval()
        inputs = {"input_features": torch.randn(2, 8, 40), "decoder_input_ids": torch.tensor([[1, 5, 7], [1, 9, 4]])}
    else:
        config = transformers.Wav2Vec2Config(
            vocab_size=24, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48,
            conv_dim=(16, 16), conv_kernel=(10, 3), conv_stride=(5, 2), num_feat_extract_layers=2,
            num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
            feat_extract_norm="layer" if name.endswith("norm") else "group")
        model = transformers.Wav2Vec2ForCTC(config).eval()
        inputs = {"input_values": torch.randn(2, 400)}
    for way in WAYS:
        small, report = compress(model, **way, calibration=[inputs])
        save(tmp_path / "m.packed", small)
        again = load(tmp_path / "m.packed")
        with torch.no_grad():
            torch.testing.assert_close(again(**inputs).logits, small.eval()(**inputs).logits, rtol=1e-4, atol=1e-5)
        assert type(again) is type(model) and again.config.to_dict() == model.config.to_dict()
        assert {row.note for row in report} <= {"", "dense pays better", "Embedding stays dense", "WeightNorm makes it",
                                                "WhisperPositionalEmbedding stays dense"}
    if name == "whisper":
        assert again.proj_out.weight is again.model.decoder.embed_tokens.weight


class Rotary(nn.Module):
    """Frequencies, turns and flags that no state has."""

    def __init__(self, first: float = 0.0123) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)
        self.register_buffer("frequencies", first + 100 * torch.arange(16) / 7, persistent=False)
        self.register_buffer("turns", torch.polar(torch.ones(16), self.frequencies), persistent=False)
        self.register_buffer("flags", torch.arange(16) > 3, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x) + torch.sin(self.frequencies).to(x.dtype) + self.turns.imag.to(x.dtype)
        return torch.where(self.flags, y, 0)


@pytest.mark.parametrize("whole", [True, False], ids=["all", "parameters"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("file", ["m.packed", "m.safetensors"])
def test_constants_that_no_state_has_keep_their_dtype(whole: bool, dtype: torch.dtype, file: str,
                                                      tmp_path: Path) -> None:
    """Hugging Face's models in half precision have frequencies in float32, which came back in half precision."""
    model, x = Rotary(), torch.randn(3, 16).to(dtype)
    (model if whole else model.linear)._apply(lambda one: one.to(dtype) if one.is_floating_point() else one)
    small, _ = compress(model, quantization="int8")
    assert ("constants" in record.record_config(small)) == (not whole)
    save(tmp_path / file, small, build=lambda config: Rotary())
    again = load(tmp_path / file, lambda config: Rotary())
    assert torch.equal(again(x), small(x))
    ours, theirs = ({name: one.dtype for name, one in modules.constants(model).items()} for model in (small, again))
    assert ours == theirs and set(ours) == {"frequencies", "turns", "flags"}


def test_a_constant_that_build_makes_otherwise_is_refused(tmp_path: Path) -> None:
    for file in ("m.packed", "m.safetensors"):
        with pytest.raises(UserError, match="the buffer 'frequencies', which the model's state leaves out, is another"):
            save(tmp_path / file, Rotary(), build=lambda config: Rotary(1.0))
    for record_, said in (({"constants": {"none": "float16"}}, "has no buffer 'none'"),
                          ({"constants": {"frequencies": "int8"}}, "dtype is one of .* not 'int8'")):
        with pytest.raises(UserError, match=said):
            record.apply_config(Rotary(), record_)
