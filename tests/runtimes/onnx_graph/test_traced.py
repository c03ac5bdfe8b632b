"""Any torch model through `torch.onnx.export`: onnxruntime, run here by itself, says what torch says."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torchaudio
from torch import nn
from torch.nn.utils import parametrizations

import asrcompress
from asrcompress.compression import modules, quantization, structures
from asrcompress.compression.structures import CannotShrink
from asrcompress.errors import UserError
from asrcompress.runtimes.onnx_graph import traced
from tests.compression.models_of_tests import tied
from tests.runtimes.tiny import tdnn

AFTER = [name for name in structures.names() if name != "dense" and not structures.family(name).not_after]


def conformer() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    model = torchaudio.models.Conformer(input_dim=32, num_heads=4, ffn_dim=64, num_layers=2,
                                        depthwise_conv_kernel_size=7).eval()
    return model, (torch.randn(2, 21, 32), torch.tensor([21, 15]))


def ran(path: Path, *arguments: torch.Tensor) -> list[np.ndarray[Any, Any]]:
    """Outputs of the file in onnxruntime, its inputs in order."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs = zip(session.get_inputs(), arguments, strict=True)
    return session.run(None, {one.name: value.numpy() for one, value in inputs})


def agree(model: nn.Module, path: Path, *arguments: torch.Tensor, atol: float = 1e-6) -> None:
    with torch.no_grad():
        expected = model.eval()(*arguments)
    for one, found in zip(expected if isinstance(expected, tuple) else (expected,), ran(path, *arguments), strict=True):
        np.testing.assert_allclose(found, one.numpy(), rtol=0, atol=atol * max(1.0, float(one.abs().max())))


@pytest.mark.parametrize("structure", AFTER)
def test_a_conformer_of_every_structure_agrees(structure: str, tmp_path: Path) -> None:
    model, arguments = conformer()
    try:
        small, _ = asrcompress.compress(model, structure, size=0.6, budget="uniform")
    except CannotShrink as error:
        small, _ = asrcompress.compress(model, structure, size=max(error.smallest, 0.6), budget="uniform")
    asrcompress.export(small, tmp_path / "model.onnx", arguments)
    agree(small, tmp_path / "model.onnx", *arguments)


def test_a_linear_layer_of_every_structure_agrees(tmp_path: Path) -> None:
    """A grouped one ended in aten::mT; traced on a single frame, it took no other number of them."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(64, 64) for _ in AFTER)).eval()
    for i, name in enumerate(AFTER):
        options = {"rank": 4, "groups": 4} if name == "grouped" else {"size": 0.6}
        modules.replace_layer(model, str(i), structures.scaled(structures.init(name, (64, 64), **options),
                                                               torch.full((64,), 2.0)))
    asrcompress.export(model, tmp_path / "model.onnx", torch.randn(1, 64), check=[torch.randn(5, 64)],
                       dynamic={"input": {0: "N"}, "output": {0: "N"}})


def test_what_tied_layers_share_is_written_once(tmp_path: Path) -> None:
    model, arguments = conformer()
    path = tmp_path / "model.onnx"
    small = tied(model, span=2, rank=3, diagonal=True)
    asrcompress.export(small, path, arguments)
    agree(small, path, *arguments)
    written = sum(int(np.prod(one.dims)) for one in onnx.load(path).graph.initializer if len(one.dims) > 1)
    # Weights of attention are parametrized, so each is written as it is.
    rebuilt = {name: layer for name, layer in modules.structured(small).items() if name.endswith("weight")}
    theirs = {id(p): p.numel() for layer in rebuilt.values() for p in layer.parameters() if p.dim() > 1}
    assert len(rebuilt) == 4 and written == sum(p.numel() for p in small.parameters() if p.dim() > 1) + sum(
        int(np.prod(layer.shape)) for layer in rebuilt.values()) - sum(theirs.values())


@pytest.mark.parametrize("name", [name for name in quantization.names() if name != "float32"])
def test_a_conformer_of_every_quantization_agrees(name: str, tmp_path: Path) -> None:
    model, arguments = conformer()
    small, _ = asrcompress.compress(model, quantization=name)
    asrcompress.export(small, tmp_path / "model.onnx", arguments)
    agree(small, tmp_path / "model.onnx", *arguments)


def test_low_rank_layers_stay_products_of_their_factors(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(96, 128), nn.ReLU(), nn.Linear(128, 64))
    small, _ = asrcompress.compress(model, "svd", rank=4)
    written = asrcompress.export(small, tmp_path / "model.onnx", torch.randn(5, 96))
    held = sum(int(np.prod(one.dims)) for one in onnx.load(written.path).graph.initializer)
    assert held <= 4 * (96 + 128 + 128 + 64) + 128 + 64 + 16 and written.size == written.path.stat().st_size < 9000


@pytest.mark.parametrize("structure", ["tucker", "cp"])
def test_frames_side_by_side(structure: str, tmp_path: Path) -> None:
    """Both ended in a ShapeInferenceError."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(96, 128), nn.ReLU(), nn.Linear(128, 64))
    small, _ = asrcompress.compress(model, structure, size=0.5, context_frames=2)
    x = torch.randn(3, 11, 96)
    asrcompress.export(small, tmp_path / "model.onnx", x)
    agree(small, tmp_path / "model.onnx", x)


class Causal(nn.Conv1d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.pad(x, (2, 0)))


@pytest.mark.parametrize("model, x", [
    (nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(16, 16)), torch.nn.utils.spectral_norm(nn.Linear(16, 16)),
                   parametrizations.weight_norm(nn.Linear(16, 16)), nn.Linear(16, 16)), torch.randn(3, 16)),
    (nn.Sequential(Causal(16, 16, 3), nn.ReLU(), Causal(16, 24, 3)), torch.randn(2, 16, 9)),
    (nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=4)), torch.randn(2, 3, 9, 9)),
    (nn.Sequential(nn.Embedding(30, 16), nn.Linear(16, 30)), torch.tensor([[1, 4, 29]])),
    (nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 8)).to(torch.bfloat16), torch.randn(3, 16).to(torch.bfloat16)),
], ids=["norms by hooks", "subclass", "two dimensions", "embedding", "bfloat16"])
def test_models_of_other_people(model: nn.Module, x: torch.Tensor, tmp_path: Path) -> None:
    """Norms by hooks ended in a RuntimeError of torch's deepcopy."""
    model.eval()(x)  # leaves tensors with a graph in the modules that have hooks
    small, _ = asrcompress.compress(model, quantization="int8")
    asrcompress.export(small, tmp_path / "model.onnx", x)
    agree(small.float(), tmp_path / "model.onnx", x.float() if x.is_floating_point() else x, atol=1e-5)


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, gain: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        y = self.layer(x)
        return {"plain": y, "louder": y if gain is None else y * gain}


def test_inputs_and_outputs_keep_their_names(tmp_path: Path) -> None:
    model = Named().eval()
    asrcompress.export(model, tmp_path / "m.onnx", {"gain": torch.full((1,), 3.0), "x": torch.randn(2, 8)})
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    assert {one.name for one in session.get_inputs()} == {"x", "gain"}
    assert [one.name for one in session.get_outputs()] == ["plain", "louder"]


def test_an_acoustic_model_takes_any_batch_and_length(tmp_path: Path) -> None:
    model = tdnn()
    asrcompress.export(model, tmp_path / "model.onnx")
    for frames in ((53,), (40, 31, 12)):
        x, lens = torch.randn(len(frames), max(frames), 80), torch.tensor(frames)
        agree(model, tmp_path / "model.onnx", x, lens, atol=1e-5)


class Branches(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(x).real


def test_what_the_exporter_does_not_take_is_a_sentence_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot export a Branches"):
        asrcompress.export(Branches(), tmp_path / "model.onnx", torch.randn(4, 4))
    with pytest.raises(UserError, match="there is no exporter 'other'"):
        asrcompress.export(nn.Linear(4, 4), tmp_path / "model.onnx", torch.randn(4, 4), exporter="other")
    with pytest.raises(UserError, match="input"):
        asrcompress.export(nn.Linear(4, 4), tmp_path / "model.onnx")
    with pytest.raises(UserError, match="dynamic names 'y', and a Linear has the inputs input and the outputs output"):
        asrcompress.export(nn.Linear(4, 4), tmp_path / "model.onnx", torch.randn(4, 4), dynamic={"y": {0: "N"}})
    assert not list(tmp_path.iterdir())


def test_outputs_that_differ_are_refused() -> None:
    model = nn.Linear(4, 4)
    made = traced.convert(model, torch.randn(2, 4))
    with torch.no_grad():
        model.weight += 0.01
    with pytest.raises(UserError, match="differs from torch's"):
        traced.check(model, made, [torch.randn(2, 4)])


@pytest.mark.parametrize("name", ["whisper", "wav2vec2"])
def test_hugging_face(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if name == "whisper":
        config = transformers.WhisperConfig(d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
                                            decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=48,
                                            num_mel_bins=8, max_source_positions=20, vocab_size=60, pad_token_id=0)
        model, x = transformers.WhisperModel(config).eval().encoder, torch.randn(1, 8, 40)
    else:
        config = transformers.Wav2Vec2Config(
            vocab_size=24, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48,
            conv_dim=(16, 16), conv_kernel=(10, 3), conv_stride=(5, 2), num_feat_extract_layers=2,
            num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2)
        model, x = transformers.Wav2Vec2ForCTC(config).eval(), torch.randn(1, 400)
    small, _ = asrcompress.compress(model, "svd", size=0.7, quantization="int8")
    asrcompress.export(small, tmp_path / "model.onnx", x)
    with torch.no_grad():
        expected = small(x)[0]
    np.testing.assert_allclose(ran(tmp_path / "model.onnx", x)[0], expected.numpy(), rtol=0, atol=1e-5)
