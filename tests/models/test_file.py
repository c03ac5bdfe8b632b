from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from asrcompress import models
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
    models.save(tmp_path / "exp" / "model.safetensors", model)
    return tmp_path / "exp" / "model.safetensors", model


def test_round_trip(saved: tuple[Path, nn.Module]) -> None:
    path, model = saved
    loaded = models.load(path)
    assert not loaded.training and loaded.config == CONFIG
    x, lens = torch.randn(2, 21, 8), torch.tensor([21, 13])
    assert torch.equal(loaded(x, lens)[0], model.eval()(x, lens)[0])
    config, tensors = models.read(path)
    assert config == CONFIG and tensors.keys() == model.state_dict().keys()
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_file_cut_short_is_a_sentence(saved: tuple[Path, nn.Module], keep: int) -> None:
    path, _ = saved
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="is not a model file of asrcompress or is damaged"):
        models.load(path)


def test_other_files_are_sentences(saved: tuple[Path, nn.Module], tmp_path: Path) -> None:
    path, model = saved
    with pytest.raises(UserError, match="the model file .* does not exist"):
        models.load(tmp_path / "other")
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    for metadata in (None, {"config": "{"}):
        save_file(tensors, path, metadata)
        with pytest.raises(UserError, match="is not a model file"):
            models.load(path)
    del tensors["output.bias"]
    save_file(tensors, path, {"config": '{"model": "tdnn", "features": 8, "vocab": 5, "stack": []}'})
    with pytest.raises(UserError, match="does not hold the tensors that its config asks for"):
        models.load(path)


def test_what_modules_share_is_stored_once(tmp_path: Path) -> None:
    model = models.build(CONFIG)
    stack, twin = [module for module in model.modules() if isinstance(module, nn.Conv1d)][:2], nn.Linear(3, 3)
    for module in stack:
        module.twin = twin
    names = [name for name in model.state_dict() if ".twin." in name]
    assert [name for name in models.stored(model) if ".twin." in name] == names[:2] and len(names) == 4
    models.save(tmp_path / "model.safetensors", model)
    expected = twin.weight.detach().clone()
    nn.init.zeros_(twin.weight)
    _, tensors = models.read(tmp_path / "model.safetensors")
    models.load_stored(model, tensors)
    assert torch.equal(stack[1].twin.weight, expected) and stack[0].twin.weight is stack[1].twin.weight
    for wrong in ({**tensors, "other": expected}, {name: tensors[name] for name in list(tensors)[1:]}):
        with pytest.raises(RuntimeError, match="key"):
            models.load_stored(model, wrong)


def test_compressed_files_are_for_another_loader(saved: tuple[Path, nn.Module]) -> None:
    path, model = saved
    model.config = {**CONFIG, "layers": {"output": {}}}  # type: ignore[assignment]
    models.save(path, model)
    with pytest.raises(UserError, match="holds compressed layers"):
        models.load(path)
