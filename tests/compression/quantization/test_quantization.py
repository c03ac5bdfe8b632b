"""What holds for every way of writing numbers, those of later files included."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

from asrcompress.compression import coders, packed, quantization, structures
from asrcompress.compression.packed.container import coding
from asrcompress.compression.quantization import Quantizer
from asrcompress.errors import UserError
from tests.conftest import REPO

SHAPES = [(1,), (70,), (12, 30), (6, 5, 3), (3, 1)]


@pytest.fixture(params=quantization.names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=SHAPES, ids=str)
def tensor(request: pytest.FixtureRequest) -> torch.Tensor:
    return 0.1 * torch.randn(*request.param, generator=torch.Generator().manual_seed(1))


def through_the_file(one: Quantizer, coder: str = "raw") -> np.ndarray:
    entry, stream = coding.encode(one, coder, {})
    entry = json.loads(json.dumps({"name": "x", **entry}))
    coding.check(entry)
    assert entry["length"] == len(stream)
    return coding.decode(entry, stream)


@pytest.mark.parametrize("coder", coders.names())
def test_the_file_holds_the_tensor_bit_for_bit(name: str, tensor: torch.Tensor, coder: str) -> None:
    one = quantization.fit(name, tensor)
    assert one.tensor().shape == tensor.shape
    np.testing.assert_array_equal(through_the_file(one, coder), one.tensor().detach().numpy())


@pytest.mark.parametrize("fill", [0.0, 0.25])
def test_constant_tensors_are_fine(name: str, fill: float) -> None:
    one = quantization.fit(name, torch.full((5, 7), fill))
    np.testing.assert_array_equal(through_the_file(one), one.tensor().detach().numpy())
    assert torch.isfinite(one.tensor()).all()


def test_spec_and_state_rebuild_it(name: str, tensor: torch.Tensor) -> None:
    one = quantization.fit(name, tensor)
    again = quantization.family(name).build(json.loads(json.dumps(one.spec())))
    again.load_state_dict(one.state_dict())
    assert torch.equal(again.tensor(), one.tensor()) and again.spec() == one.spec()


def test_gradients_reach_what_is_trained(name: str) -> None:
    one = quantization.fit(name, torch.randn(12, 30, generator=torch.Generator().manual_seed(2)))
    one.tensor().square().sum().backward()
    trained = [p for p in one.parameters() if p.requires_grad]
    assert trained and any(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in trained)


def test_a_model_is_written_trained_copied_and_packed(name: str, tmp_path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 12))
    model.config = {}  # type: ignore[assignment]
    small = quantization.apply(model, name)
    assert sorted(quantization.attached(small)) == ["0.weight", "2.weight"]
    optimizer = torch.optim.SGD(small.parameters(), lr=0.01)
    for one in quantization.attached(small).values():
        one.advance(0.5)
    small(torch.randn(5, 16)).square().sum().backward()
    optimizer.step()
    twin = copy.deepcopy(small)
    x = torch.randn(3, 16)
    torch.testing.assert_close(twin(x), small(x))

    def build(config: object) -> nn.Module:
        return nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 12))

    packed.save(tmp_path / "x.packed", small, build=build)
    torch.testing.assert_close(packed.load(tmp_path / "x.packed", build)(x), small(x).detach())


def test_factors_of_structures_are_tensors_too(name: str) -> None:
    model = nn.Sequential(nn.Linear(16, 24))
    from asrcompress.compression import modules

    modules.replace_layer(model, "0", structures.fit("svd", model[0].weight.detach(), rank=4))
    small = quantization.apply(model, name)
    assert sorted(quantization.attached(small)) == ["0.structure.left", "0.structure.right"]
    assert torch.isfinite(small(torch.randn(2, 16))).all()


def test_every_structure_multiplies_by_what_its_quantized_parameters_make(name: str, tmp_path) -> None:
    """`ldr` took what a quantizer is made of for its own parameters."""
    from asrcompress.compression import modules
    from asrcompress.measure import size

    def build(config: object) -> nn.Module:
        return nn.Sequential(*(nn.Linear(12, 12) for _ in structures.names()))

    torch.manual_seed(0)
    model, x = build({}), torch.randn(3, 12)
    for i, structure in enumerate(structures.names()):
        how = {"dense": {}, "tied": {"rank": 4}}.get(structure, {"size": 0.6})
        modules.replace_layer(model, str(i), structures.init(structure, (12, 12), **how))
    small = quantization.apply(model.eval(), name)
    packed.save(tmp_path / "x.packed", small, build=build)
    loaded = packed.load(tmp_path / "x.packed", build).eval()
    assert size.of_model(small) == size.of_model(loaded) == size.of_model(model)
    with torch.no_grad():
        for structure, layer, again in zip(structures.names(), small, loaded, strict=True):
            values = quantization.materialize(copy.deepcopy(layer)).structure.dense()
            torch.testing.assert_close(layer(x), x @ values.T + layer.bias, rtol=1e-4, atol=1e-5, msg=structure)
            torch.testing.assert_close(again(x), layer(x), msg=structure)


def test_rows_that_folding_scales_reach_the_file(name: str) -> None:
    one = quantization.fit(name, torch.randn(12, 30, generator=torch.Generator().manual_seed(3)))
    before, scale = one().detach(), torch.linspace(-2, 3, 12)
    one.scale_rows(scale)
    np.testing.assert_array_equal(through_the_file(one), (before * scale[:, None]).numpy())


def test_it_has_a_config_that_opens_with_its_command(name: str) -> None:
    text = (REPO / "conf" / "quantization" / f"{name}.yaml").read_text()
    assert text.startswith("# asrcompress compress ") and f"\nname: {name}\n" in text


def test_wrong_calls_are_user_errors(name: str) -> None:
    with pytest.raises(UserError, match="not finite"):
        quantization.fit(name, torch.full((3, 3), float("nan")))
    with pytest.raises(UserError, match="colour"):
        quantization.fit(name, torch.randn(3, 3), colour=1)
    with pytest.raises(UserError, match="no tensor is selected"):
        quantization.apply(nn.Sequential(nn.Linear(3, 3)), name, include=("nothing*",))
    with pytest.raises(UserError):
        quantization.apply_config(nn.Sequential(nn.Linear(3, 3)), {"7.weight": {"quantization": name, "shape": [3, 3]}})


def test_an_unknown_key_of_a_stored_spec_is_a_user_error(name: str) -> None:
    spec = {"quantization": name, **quantization.fit(name, torch.randn(3, 3)).spec()}
    for wrong in ({"colour": 1}, {"dtype": "int3"}):
        with pytest.raises(UserError, match="the tensor '0.weight' cannot be made as its file says: quantization"):
            quantization.apply_config(nn.Sequential(nn.Linear(3, 3)), {"0.weight": {**spec, **wrong}})


def test_an_unknown_quantization_is_a_user_error() -> None:
    with pytest.raises(UserError, match="there is no quantization 'int3'; there are float32, "):
        quantization.fit("int3", torch.randn(3, 3))
