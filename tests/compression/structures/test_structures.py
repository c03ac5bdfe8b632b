"""What holds for every structure, those of later files included."""

import json

import pytest
import torch
from torch.nn import functional

from asrcompress.compression import structures
from asrcompress.compression.structures import Scaled, Structure
from asrcompress.errors import UserError
from tests.compression.structures.checks import alone
from tests.conftest import REPO


@pytest.fixture(params=structures.names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[(24, 16), (16, 12, 3)], ids=["matrix", "kernel"])
def layer(request: pytest.FixtureRequest, name: str) -> Structure:
    weight = torch.randn(*request.param, generator=torch.Generator().manual_seed(0))
    return alone(name, weight)


def apply(layer: Structure, x: torch.Tensor) -> torch.Tensor:
    return layer(x[0].T) if len(layer.shape) == 2 else layer.conv1d(x, padding=1)


@pytest.mark.parametrize("frames", [1, 10])
def test_the_fast_way_is_the_dense_way(layer: Structure, frames: int) -> None:
    x = torch.randn(2, layer.shape[1], frames)
    w = layer.dense()
    assert w.shape == layer.shape
    expected = x[0].T @ w.T if w.dim() == 2 else functional.conv1d(x, w, padding=1)
    torch.testing.assert_close(apply(layer, x), expected, rtol=1e-4, atol=1e-5)


def test_spec_rebuilds_it_through_json(layer: Structure, name: str) -> None:
    copy = structures.build(name, json.loads(json.dumps(layer.spec())))
    copy.load_state_dict(layer.state_dict())
    assert torch.equal(copy.dense(), layer.dense())
    assert copy.num_parameters() == layer.num_parameters() and copy.name == name and copy.spec() == layer.spec()


def test_scaled_rows_are_exact_with_or_without_the_familys_help(layer: Structure) -> None:
    scale, x = torch.rand(layer.shape[0]) + 0.5, torch.randn(2, layer.shape[1], 10)
    rows = scale if len(layer.shape) == 2 else scale[:, None]
    expected = apply(layer, x).detach() * rows
    wrapped = Scaled(layer, scale)
    torch.testing.assert_close(apply(wrapped, x).detach(), expected)
    rebuilt = structures.build(layer.name, json.loads(json.dumps(wrapped.spec())))
    rebuilt.load_state_dict(wrapped.state_dict())
    assert torch.equal(rebuilt.dense(), wrapped.dense())
    torch.testing.assert_close(apply(structures.scaled(layer, scale), x).detach(), expected)


def test_every_number_gets_a_gradient(layer: Structure) -> None:
    apply(layer, torch.randn(2, layer.shape[1], 10)).square().sum().backward()
    for parameter in layer.parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all() and parameter.grad.any()


def test_inputs_of_a_frozen_layer_get_gradients_after_inference_mode(layer: Structure) -> None:
    x = torch.randn(2, layer.shape[1], 10)
    with torch.inference_mode():
        apply(layer.requires_grad_(False), x)
    (y := apply(layer, x.requires_grad_())).square().sum().backward()
    assert x.grad is not None
    w = layer.dense()
    torch.testing.assert_close(x.grad[0], 2 * w.T @ y.T if w.dim() == 2 else functional.conv_transpose1d(
        2 * y, w, padding=1)[0], rtol=1e-3, atol=1e-4)


def test_bfloat16(layer: Structure) -> None:
    x = torch.randn(2, layer.shape[1], 10)
    expected = apply(layer, x)
    y = apply(layer.bfloat16(), x.bfloat16())
    assert y.dtype == layer.dense().dtype == torch.bfloat16
    assert float((y - expected).detach().norm() / expected.detach().norm()) < 0.03
    y.float().square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters() if p.grad is not None)
    refit = alone(layer.name, layer.dense().detach())
    assert all(p.dtype == torch.bfloat16 for p in refit.parameters())


def test_a_rebuilt_weight_is_kept_at_inference_only_and_follows_its_numbers(layer: Structure) -> None:
    layer.eval()
    with torch.no_grad():
        kept = layer.cached()
        assert layer.cached() is kept
        next(layer.parameters()).mul_(2)
        torch.testing.assert_close(layer.cached(), layer.dense())
    assert layer.cached().requires_grad and not layer._kept
    with torch.inference_mode():
        torch.testing.assert_close(layer.cached(), layer.dense())
    assert not layer.train()._kept


def test_it_has_a_config_that_opens_with_its_command(name: str) -> None:
    text = (REPO / "conf" / "structure" / f"{name}.yaml").read_text()
    command = "train" if structures.family(name).not_after else "compress"
    assert text.startswith(f"# asrcompress {command} ") and f"\nname: {name}\n" in text


def test_wrong_calls_are_user_errors(name: str) -> None:
    w = torch.randn(8, 8)
    for weight, options in ((w, {"size": 0}), (w, {"size": float("nan")}), (w, {"colour": 1}), (torch.randn(8), {}),
                            (w * float("inf"), {"size": 1})):
        with pytest.raises(UserError):
            structures.fit(name, weight, **options)
    with pytest.raises(UserError):
        structures.build(name, {"shape": [8]})
    with pytest.raises(UserError):
        structures.build(name, {"colour": 1})


def test_layers_that_are_made_together(name: str) -> None:
    weights = {"0.a": torch.randn(24, 16), "1.a": torch.randn(24, 16), "0.c": torch.randn(16, 12, 3),
               "1.c": torch.randn(16, 12, 3)}
    size = {"dense": 1.0, "tied": 0.7}.get(name, 0.5)
    shares = dict.fromkeys(weights, structures.Allotment(size, structures.make_options(name, {})))
    shapes = {path: weight.shape for path, weight in weights.items()}
    for made in (structures.fit_all(name, weights, shares), structures.init_all(name, shapes, shares)):
        assert {path: layer.shape for path, layer in made.items()} == shapes
        stored = {id(p): p.numel() for layer in made.values() for p in layer.parameters()}
        assert sum(layer.num_parameters() for layer in made.values()) == sum(stored.values()), "nothing counts twice"
        assert not torch.equal(made["0.a"].dense(), made["1.a"].dense())
        if "seed" in (spec := made["0.a"].spec()):
            assert spec["seed"] != made["1.a"].spec()["seed"], "layers of one shape do not collide alike"
    with pytest.raises(UserError, match="^1.a: "):
        structures.fit_all(name, {**weights, "1.a": weights["1.a"] * float("nan")}, shares)
    with pytest.raises(UserError, match="^0.c: "):
        structures.init_all(name, shapes, {**shares, "0.c": shares["0.c"]._replace(size=-1)})


@pytest.mark.parametrize(("family", "options", "numbers"), [
    ("svd", {"rank": 256, "unfolding": "output"}, 768_000), ("circulant", {"block": 1000}, 2_000),
    ("toeplitz_like", {"rank": 2, "block": 1000}, 8_000), ("hashed", {"size": 1 / 8}, 250_000)])
def test_what_a_layer_of_two_taps_between_1000_channels_stores(family: str, options: dict[str, int],
                                                               numbers: int) -> None:
    assert structures.init(family, (1000, 1000, 2), **options).num_parameters() == numbers


def test_an_unknown_structure_is_a_user_error() -> None:
    with pytest.raises(UserError, match="there is no structure 'magic'; there are .*dense, "):
        structures.fit("magic", torch.randn(8, 8))
