"""Folding against numpy and against the model itself, in float64, and what folded files hold."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from asrcompress.compression import Plan, activations, compress, fold, folding, load, packed, record, save_model
from asrcompress.compression.structures.low_rank.svd import Svd
from asrcompress.errors import UserError
from tests.compression.models_of_tests import Normed, net, normed


def folded_equals(model: nn.Module) -> nn.Module:
    folded = fold(model.double())
    x = torch.randn(2, 16, 20, dtype=torch.float64)
    torch.testing.assert_close(folded(x), model.eval()(x), rtol=1e-10, atol=1e-10)
    assert folded.config["folded"] is True and not model.config.get("folded")
    assert not any(isinstance(module, nn.BatchNorm1d) for module in folded.modules())
    assert sum(isinstance(module, nn.BatchNorm1d) for module in model.modules()) == 3, "the model itself keeps its own"
    return folded


def test_dense_layers_fold_exactly() -> None:
    folded_equals(net())
    without_affine = net()
    without_affine.norms[1] = nn.BatchNorm1d(32, affine=False)
    folded_equals(without_affine)


def test_structured_layers_fold_exactly_and_parametrized_ones() -> None:
    model = net()
    model.convs[2] = nn.Conv1d(32, 32, 5, padding=2, groups=16, bias=False)  # no subclass, but no plain one either
    small, report = compress(model, Plan("svd", None, options={"rank": 3}))
    assert {row.path for row in report if row.structure == "svd"} >= {"convs.0", "convs.1", "convs.2.weight"}
    folded = folded_equals(small)
    assert record.layers(folded) == record.layers(small)


def test_a_family_that_cannot_scale_its_rows_is_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Svd, "scale_rows", lambda self, scale: False)
    small, _ = compress(net(), Plan("svd", None, options={"rank": 3}))
    folded = folded_equals(small)
    assert all(spec["row_scale"] for path, spec in record.layers(folded).items() if path != "output")


def test_what_cannot_be_folded_is_only_copied() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    copied = fold(model)
    assert copied is not model and isinstance(copied[1], nn.BatchNorm1d) and not copied.training
    twice = fold(fold(net()))
    assert twice.config["folded"] is True


def same_outputs(ours: nn.Module, theirs: nn.Module, within: float = 1e-6) -> None:
    x = torch.randn(3, 9, 16, dtype=next(theirs.parameters()).dtype)
    torch.testing.assert_close(ours(x), theirs(x), rtol=within, atol=within)


def test_gains_and_biases_of_layernorms_fold_exactly() -> None:
    model = normed().double()
    folded = fold(model)
    same_outputs(folded, model)
    g, h, weight = (one.detach().numpy() for one in (model.first.weight, model.first.bias, model.right.weight))
    np.testing.assert_allclose(folded.right.weight.detach().numpy(), weight * g, atol=1e-12)
    np.testing.assert_allclose(folded.right.bias.detach().numpy(), weight @ h, atol=1e-12)  # it had none
    assert [name for name, one in folded.named_modules() if isinstance(one, nn.LayerNorm) and one.weight is not None
            ] == ["last"], "a residual reads it"
    many, fewer = (sum(p.numel() for p in one.parameters()) for one in (model, folded))
    assert many - fewer == 2 * 2 * 16 - 16


def test_layernorms_fold_into_svd_and_not_into_what_has_no_columns() -> None:
    small, _ = compress(normed().double(), Plan("svd", None, options={"rank": 3}, include=("left", "right", "up")))
    folded = fold(small)
    same_outputs(folded, small)
    assert folded.first.weight is None and record.layers(folded) == record.layers(small)
    hashed, _ = compress(normed().double(), Plan("hashed", 0.9, include=("right",)))
    assert folding.unfoldable(hashed) == {"first": "right: the columns of a hashed cannot be scaled"}
    folded = fold(hashed)
    same_outputs(folded, hashed)
    assert folded.first.weight is not None and folded.second.weight is None


@pytest.mark.parametrize("name", ["int8", "codebook", "pruned"])
def test_layernorms_stay_before_quantized_weights_in_every_file(name: str, tmp_path: Path) -> None:
    small, _ = compress(normed(), Plan(quantization=name, quantization_include=("right.*",)))
    assert folding.unfoldable(small) == {"first": "right: its weight is quantized"}
    packed.save(tmp_path / "m.packed", small, build=Normed)
    loaded = packed.load(tmp_path / "m.packed", Normed)
    same_outputs(loaded, small, 1e-4)
    assert loaded.first.weight is not None and loaded.second.weight is None
    again = fold(loaded)  # plain by now, but on the grid of what was quantized
    assert torch.equal(again.right.weight, loaded.right.weight)
    packed.save(tmp_path / "again.packed", loaded, build=Normed)
    save_model(tmp_path / "m.safetensors", loaded, Normed)
    for file in ("again.packed", "m.safetensors"):
        same_outputs(load(tmp_path / file, Normed), loaded, 1e-6)


def test_layernorms_stay_where_inputs_are_rounded() -> None:
    model = normed()
    x = torch.randn(50, 16)
    rounded = activations.apply(model, activations.observe(model, [(x,)]))
    why = "its inputs are rounded"
    assert folding.unfoldable(rounded) == {"first": f"left: {why}", "second": f"up: {why}"}
    assert torch.equal(fold(rounded)(x), rounded(x))


def test_a_file_with_norms_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(UserError, match="has not the LayerNorms"):
        record.apply_config(Normed({"folded": True}), {"norms": ["moon"]})
