from pathlib import Path

import pytest
import torch

from asrcompress import models
from asrcompress.compression import Plan, compress, load, packed, save, save_model
from asrcompress.errors import UserError
from tests.compression.models_of_tests import Net, net

TDNN = {"model": "tdnn", "features": 80, "vocab": 24, "stack": [{"dim": 48, "taps": 3, "stride": 2, "repeat": 2},
                                                                 {"dim": 48, "taps": 3, "dilation": 3}]}


def test_one_function_reads_every_kind_of_file(tmp_path: Path) -> None:
    model, x = net(), torch.randn(2, 16, 20)
    small, _ = compress(model, Plan("svd", size=0.6))
    save_model(tmp_path / "dense.safetensors", model, Net)
    save_model(tmp_path / "small.safetensors", small, Net)
    packed.save(tmp_path / "small.packed", small, build=Net)
    assert torch.equal(load(tmp_path / "dense.safetensors", Net)(x), model(x))
    again = load(tmp_path / "small.safetensors", Net)
    assert torch.equal(again(x), small.eval()(x)) and again.config == small.config
    torch.testing.assert_close(load(tmp_path / "small.packed", Net)(x), small(x), rtol=1e-4, atol=1e-5)


def test_our_own_models_need_no_builder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small, _ = compress(models.build(TDNN), Plan("svd", size=0.5, options={"rank_multiple": 2}))
    x, lens = torch.randn(2, 50, 80), torch.tensor([50, 31])
    save_model(tmp_path / "small.safetensors", small)
    packed.save(tmp_path / "small.packed", small)
    expected, _ = small.eval()(x, lens)
    assert torch.equal(load(tmp_path / "small.safetensors")(x, lens)[0], expected)
    torch.testing.assert_close(load(tmp_path / "small.packed")(x, lens)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_our_own_models_compute_in_float32_and_others_as_they_were_saved(dtype: torch.dtype, tmp_path: Path) -> None:
    x, lens = torch.randn(2, 50, 80), torch.tensor([50, 31])
    half = models.build(TDNN).to(dtype).eval()
    save_model(tmp_path / "half.safetensors", half)
    assert torch.equal(load(tmp_path / "half.safetensors")(x, lens)[0], half.float()(x, lens)[0])
    save_model(tmp_path / "other.safetensors", net().to(dtype), Net)
    assert {value.dtype for value in load(tmp_path / "other.safetensors", Net).parameters()} == {dtype}


def test_a_file_that_lacks_what_its_config_needs_is_a_user_error(tmp_path: Path) -> None:
    save_model(tmp_path / "good.safetensors", net(), Net)
    with pytest.raises(UserError, match="make it again"):
        load(tmp_path / "good.safetensors", lambda config: Net({"width": 40}))
    model = net()
    model.config["width"] = 40  # no longer what it was built from
    with pytest.raises(UserError, match="wrong.safetensors does not hold"):
        save_model(tmp_path / "wrong.safetensors", model, Net)
    assert not (tmp_path / "wrong.safetensors").exists()
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path / "none.safetensors", Net)


class Sharing(torch.nn.Module):
    """Two weights in one memory, and a buffer that is a part of another."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.c = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
        self.c.weight.data = self.a.weight.data
        self.register_buffer("p", torch.arange(10.0))
        self.register_buffer("q", self.p[2:6])


def test_tensors_that_share_memory_are_written_each(tmp_path: Path) -> None:
    model = Sharing()
    save_model(tmp_path / "m.safetensors", model, lambda config: Sharing())
    again = load(tmp_path / "m.safetensors", lambda config: Sharing())
    assert all(torch.equal(one, again.state_dict()[name]) for name, one in model.state_dict().items())


@pytest.mark.parametrize("name", ["m.packed", "m.safetensors"])
def test_a_folder_is_no_file(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    for verb in (load, packed.load, packed.info):
        with pytest.raises(UserError, match=f"{name} is a folder; give the name of the file"):
            verb(tmp_path / name)
    with pytest.raises(UserError, match=f"{name} is a folder; give the name of a file"):
        save(tmp_path / name, torch.nn.LazyLinear(3))  # before anything else is looked at
