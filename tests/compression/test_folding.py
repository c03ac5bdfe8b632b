import pytest
import torch
from torch import nn

from asrcompress.compression import Plan, compress, fold, record
from asrcompress.compression.structures.low_rank.svd import Svd
from tests.compression.models_of_tests import net


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
