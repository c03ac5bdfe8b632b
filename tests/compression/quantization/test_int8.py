"""Against torch's own quantized tensors and a search over every code."""

import numpy as np
import pytest
import torch

from asrcompress.compression import quantization
from asrcompress.compression.quantization._integer import groups, spread


def weight(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("affine", [False, True])
def test_rounding_is_torchs_per_channel_quantisation(affine: bool) -> None:
    w = weight(6, 40) + (0.5 if affine else 0)
    one = quantization.fit("int8", w, affine=affine)
    scale = (one.scale.detach() / one.base).half().double()[:, 0] * one.base.double()
    zero = one.zero[:, 0] if affine else torch.zeros(6, dtype=torch.int64)
    kind = torch.quint8 if affine else torch.qint8
    theirs = torch.quantize_per_channel(w, scale, zero, 0, kind)
    torch.testing.assert_close(one.tensor().detach(), theirs.dequantize(), rtol=1e-6, atol=1e-7)


def test_error_is_within_half_a_step_inside_the_range() -> None:
    w = weight(8, 200)
    one = quantization.fit("int8", w)
    step = one.scale.detach()
    error = (one.tensor().detach() - w).abs()
    inside = w.abs() <= 127 * step
    assert (error[inside] <= (0.5 * step * 1.001).expand_as(w)[inside]).all()
    assert inside.float().mean() > 0.97


def test_no_other_code_is_nearer() -> None:
    w = weight(1, 50)
    one = quantization.fit("int8", w)
    grid = np.arange(-127, 128) * float(one.encode().floats["scale"][0, 0]) * float(one.base)
    nearest = grid[np.abs(w.numpy()[0][:, None] - grid).argmin(1)]
    np.testing.assert_allclose(one.tensor().detach().numpy()[0], nearest, rtol=1e-6, atol=1e-9)


def test_a_smaller_range_is_taken_where_it_pays() -> None:
    w = weight(1, 4000)
    w[0, 0] = 8.0
    one = quantization.fit("int4", w, group=0)
    plain = float(w.abs().max()) / 7
    full = ((w / plain).round().clamp(-7, 7) * plain - w).square().sum()
    assert float((one.tensor().detach() - w).square().sum()) < float(full)


@pytest.mark.parametrize(("shape", "group", "expected"), [((12,), 0, (1, 1, 12)), ((12,), 5, (1, 3, 5)),
                                                           ((4, 9), 0, (4, 1, 9)), ((4, 3, 3), 4, (4, 3, 4))])
def test_groups_and_their_spread(shape: tuple[int, ...], group: int, expected: tuple[int, int, int]) -> None:
    rows, count, size = groups(shape, group)
    assert (rows, count, size) == expected
    each = spread(torch.arange(rows * count).reshape(rows, count), shape, size).reshape(rows, -1)
    for row in range(rows):
        assert each[row].tolist() == [row * count + column // size for column in range(each.shape[1])]


def test_codes_fit_their_bits_and_pack_in_them() -> None:
    for name, width, largest in (("int8", 8, 127), ("int4", 4, 7)):
        one = quantization.fit(name, weight(6, 64))
        codes = one.encode().integers["codes"]
        assert np.abs(codes).max() <= largest
        affine = quantization.fit(name, weight(6, 64) + 1, affine=True).encode().integers["codes"]
        assert affine.min() >= 0 and affine.max() < 2**width


def test_learned_step_has_the_gradient_of_the_paper() -> None:
    """Esser et al. 2020, equation 3: round(w/s) - w/s inside the range, the bound outside; times 1 / sqrt(N Q)."""
    one = quantization.fit("int4", torch.tensor([[0.3, -0.74, 5.0, -9.0]]), group=0)
    with torch.no_grad():
        one.scale.fill_(0.5)
        one.base.fill_(0.5)
    one.tensor().sum().backward()
    expected = (round(0.6) - 0.6) + (round(-1.48) + 1.48) + 7 - 7
    assert float(one.scale.grad) == pytest.approx(expected / (4 * 7) ** 0.5, rel=1e-5)
    assert one.weight.grad.tolist() == [[1.0, 1.0, 0.0, 0.0]]


def test_rows_scaled_by_folding_keep_their_codes() -> None:
    """Scales of half precision would be rounded anew, and codes would move with them."""
    one = quantization.fit("int8", weight(6, 40))
    before, scale = one.encode().integers["codes"], torch.tensor([1.0, -2, 3, 0.5, 1, 1])
    tensor = one().detach()
    one.scale_rows(scale)
    np.testing.assert_array_equal(one.encode().integers["codes"], before)
    assert torch.equal(one().detach(), tensor * scale[:, None])
