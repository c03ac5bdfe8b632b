"""Weights that real models hold at times: every structure is finite, keeps the dtype and reports its true error, or
says in one sentence why it cannot."""

import numpy as np
import pytest
import torch

from asrcompress.compression import structures
from asrcompress.errors import UserError

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


ODD = {
    "zero": torch.zeros(12, 8), "constant": torch.full((12, 8), 0.5), "tiny": drawn(12, 8) * 1e-38,
    "huge": drawn(12, 8) * 1e30, "one element": torch.full((1, 1), 3.0), "one row": drawn(1, 12),
    "one column": drawn(12, 1), "one tap": drawn(8, 6, 1), "zero kernel": torch.zeros(8, 6, 3),
    "tiny kernel": drawn(8, 6, 3) * 1e-38, "huge kernel": drawn(8, 6, 3) * 1e30,
    "zero rows": drawn(12, 8) * (torch.arange(12) % 3 > 0)[:, None],
    "a row a hundred-millionth of the others": drawn(12, 8) * torch.tensor([1e-8] + [1.0] * 11)[:, None],
}
CASES = [(key, dtype) for key in ODD for dtype in DTYPES if ODD[key].to(dtype).isfinite().all()]


def relative_error(layer: structures.Structure, weight: torch.Tensor) -> float:
    """From numpy's norms in float64; of a weight of zeros, whether it stays zero."""
    wanted, made = (t.detach().double().numpy() for t in (weight, layer.dense()))
    scale = np.abs(wanted).max() or 1.0
    return float(np.linalg.norm(made / scale - wanted / scale) / (np.linalg.norm(wanted / scale) or 1.0))


@pytest.mark.parametrize("name", structures.names())
@pytest.mark.parametrize(("key", "dtype"), CASES, ids=lambda value: str(value).removeprefix("torch."))
def test_an_odd_weight_is_fitted_or_refused(name: str, key: str, dtype: torch.dtype) -> None:
    weight, size = ODD[key].to(dtype), 1.0 if name == "dense" else 0.6
    try:
        layer = structures.fit(name, weight, size)
    except UserError as error:
        assert "\n" not in str(error) and name in str(error)
        return
    made = layer.dense().detach()
    assert made.dtype == dtype and made.shape == weight.shape and torch.isfinite(made).all()
    assert all(p.dtype == dtype and torch.isfinite(p).all() for p in layer.parameters())
    assert layer.num_parameters() <= size * weight.numel() + 1e-9
    rounding = {torch.float64: 1e-6, torch.float32: 1e-3}.get(dtype, 0.1)
    error = relative_error(layer, weight)
    assert error <= 1 + rounding, "no worse than zeros"
    assert structures.relative_error(made, weight) == pytest.approx(error, rel=1e-6, abs=1e-12)
