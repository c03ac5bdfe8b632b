import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from asrcompress import models
from asrcompress.compression import load, loading, save_model, state
from asrcompress.errors import UserError

CONFIG = {
    "model": "tdnn",
    "features": 8,
    "vocab": 5,
    "bypass": 0.5,
    "stack": [{"dim": 6, "taps": 3, "stride": 2}, {"dim": 6, "taps": 3, "stride": 2}, {"dim": 6, "taps": 3}],
}


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, nn.Module]:
    model = models.build(CONFIG)
    for _ in range(3):
        model(torch.randn(2, 40, 8), torch.tensor([40, 30]))  # moves the BatchNorm statistics
    save_model(tmp_path / "exp" / "model.safetensors", model)
    return tmp_path / "exp" / "model.safetensors", model


def test_round_trip(saved: tuple[Path, nn.Module]) -> None:
    path, model = saved
    loaded = load(path)
    assert not loaded.training and loaded.config == CONFIG
    x, lens = torch.randn(2, 21, 8), torch.tensor([21, 13])
    assert torch.equal(loaded(x, lens)[0], model.eval()(x, lens)[0])
    metadata, tensors = loading.read(path)
    assert metadata["model"] == {"adapter": "asrcompress", "config": CONFIG}
    assert tensors.keys() == model.state_dict().keys()
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]


def test_the_same_model_is_the_same_file(saved: tuple[Path, nn.Module], tmp_path: Path) -> None:
    """safetensors writes the keys of its metadata in a random order, and there were several."""
    path, model = saved
    for _ in range(8):
        save_model(tmp_path / "again", model)
        assert (tmp_path / "again").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_file_cut_short_is_a_sentence(saved: tuple[Path, nn.Module], keep: int) -> None:
    path, _ = saved
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="is not a model file of asrcompress or is damaged"):
        load(path)


def test_other_files_are_sentences(saved: tuple[Path, nn.Module], tmp_path: Path) -> None:
    path, model = saved
    with pytest.raises(UserError, match="the model file .* does not exist"):
        load(tmp_path / "other")
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    for said in ("{", "1", "[]", '{"model": 1, "compression": {}}', '{"model": {"config": 1}, "compression": {}}',
                 '{"model": {"config": {}}, "compression": []}', None):
        metadata = None if said is None else {"asrcompress": said}
        save_file(tensors, path, metadata)
        with pytest.raises(UserError, match="is not a model file"):
            load(path)
    del tensors["output.bias"]
    said = json.dumps({"model": {"adapter": "asrcompress", "config": CONFIG}, "compression": {}})
    save_file(tensors, path, {"asrcompress": said})
    with pytest.raises(UserError, match="does not hold what its config asks for"):
        load(path)


def test_what_modules_share_is_stored_once(tmp_path: Path) -> None:
    def build(config: object) -> nn.Module:
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
        for layer in (model[0], model[1]):
            layer.twin = model[2]
        return model

    model = build({})
    assert [name for name in state.stored(model) if "2." in name or "twin" in name] == ["0.twin.weight", "0.twin.bias"]
    save_model(tmp_path / "model.safetensors", model, build)
    _, tensors = loading.read(tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors", build)
    assert torch.equal(again[1].twin.weight, model[2].weight) and again[0].twin.weight is again[1].twin.weight
    for wrong in ({**tensors, "other": model[2].weight}, {name: tensors[name] for name in list(tensors)[1:]}):
        with pytest.raises(RuntimeError, match="key"):
            state.load_stored(model, wrong)
