from pathlib import Path

import pytest
from torch import nn

from asrcompress.compression import Plan, compress, quantization
from asrcompress.errors import UserError
from asrcompress.measure import size


def net() -> nn.Module:
    return nn.Sequential(nn.Conv1d(8, 16, 3), nn.BatchNorm1d(16), nn.Flatten(), nn.Linear(16, 4, bias=False))


def test_dense_by_hand() -> None:
    parameters = 16 * 8 * 3 + 16 + 2 * 16 + 16 * 4
    numbers = parameters + 2 * 16  # the running mean and variance; BatchNorm's counter is no number of the model
    assert size.of_model(net()) == {"parameters": parameters, "numbers": numbers, "dense_bytes": 4 * numbers}


def test_compressed_against_its_report() -> None:
    model = net()
    small, report = compress(model, Plan(structure="svd", size=0.5))
    dense, found = size.of_model(model), size.of_model(small)
    assert found["dense_bytes"] == dense["dense_bytes"]
    assert dense["parameters"] - found["parameters"] == sum(record.before - record.after for record in report) > 0
    assert found["parameters"] == sum(parameter.numel() for parameter in small.parameters())


def test_a_quantized_tensor_counts_as_what_it_makes() -> None:
    """A codebook of 256 entries counted as 256 parameters."""
    for model in (net(), compress(net(), Plan(structure="svd", size=0.5))[0], nn.MultiheadAttention(16, 4)):
        found = size.of_model(model)
        for name in ("int8", "codebook", "pruned"):
            assert size.of_model(quantization.apply(model, name)) == found, name


def test_file(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(bytes(1234))
    assert size.of_file(tmp_path / "model") == {"packed_bytes": 1234}
    with pytest.raises(UserError, match="does not exist"):
        size.of_file(tmp_path / "none")
