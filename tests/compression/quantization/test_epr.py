"""Against scipy's logistic distribution, numpy's FFT and empirical entropies."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from asrcompress.compression import quantization
from asrcompress.compression.quantization.epr import PACE, entropy, real_dft
from asrcompress.errors import UserError


def weight(*shape: int) -> torch.Tensor:
    return 0.05 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("taps", [1, 2, 3, 4, 5, 8])
def test_the_transform_is_orthonormal_and_numpys(taps: int) -> None:
    basis = real_dft(taps).astype(np.float64)
    np.testing.assert_allclose(basis @ basis.T, np.eye(taps), atol=1e-6)
    x = np.random.default_rng(0).normal(size=taps)
    theirs = np.abs(np.fft.rfft(x)) ** 2
    ours = (basis @ x) ** 2
    assert ours[0] == pytest.approx(theirs[0] / taps, abs=1e-6)
    if taps > 2:
        assert ours[1] + ours[2] == pytest.approx(2 * theirs[1] / taps, rel=1e-5)


@pytest.mark.parametrize("bits", [0.5, 1.5, 3.0, 6.0])
def test_it_starts_at_the_entropy_asked_for_or_at_one_bit(bits: float) -> None:
    one = quantization.fit("epr", weight(64, 64, 3), bits=bits)
    codes = torch.from_numpy(one.encode().integers["codes"])
    assert entropy(codes) == pytest.approx(max(bits, 1.0), abs=0.1)


def test_the_rate_is_that_of_the_rounded_numbers_and_its_gradient_that_of_noise() -> None:
    one = quantization.fit("epr", weight(10, 10), bits=1.0)
    codes = torch.from_numpy(one.encode().integers["codes"]).float().reshape(-1, 1)
    torch.testing.assert_close(one.rate(), one.code_length(codes).sum())
    one.rate().backward()
    assert one.coefficients.grad is not None and float(one.coefficients.grad.abs().min()) > 0  # rounding alone has none


def test_code_length_is_the_mass_of_scipys_logistic() -> None:
    one = quantization.fit("epr", weight(10, 10))
    with torch.no_grad():
        one.log_width.fill_(math.log(3.0) / PACE)
    x = torch.arange(-12.0, 13.0)[:, None]
    mass = stats.logistic.cdf(x.numpy() + 0.5, scale=3) - stats.logistic.cdf(x.numpy() - 0.5, scale=3)
    np.testing.assert_allclose(one.code_length(x).detach().numpy(), -np.log2(mass), rtol=1e-4)
    drawn = torch.from_numpy(stats.logistic.rvs(scale=3, size=200_000, random_state=0)).round()[:, None]
    mean = float(one.code_length(drawn.float()).mean().detach())
    assert mean == pytest.approx(4.472, abs=0.02) and mean == pytest.approx(entropy(drawn), abs=0.01)


def test_the_noisy_rate_is_near_the_rounded_one_after_the_prior_is_fitted() -> None:
    one = quantization.fit("epr", weight(80, 60), bits=3.0)
    optimizer = torch.optim.Adam([one.log_width, one.weight_logit], lr=2e-3)
    for _ in range(300):
        optimizer.zero_grad()
        one.rate().backward()
        optimizer.step()
    codes = torch.from_numpy(one.encode().integers["codes"]).float().reshape(-1, 1)
    coded = float(one.code_length(codes).sum().detach())
    assert float(one.rate().detach()) == pytest.approx(coded, rel=0.03)
    assert coded >= entropy(codes) * codes.numel() * 0.999 and coded < entropy(codes) * codes.numel() * 1.05


@pytest.mark.parametrize(("strength", "largest", "least"), [(0.0, 99, 2.5), (100.0, 0.02, 0)])
def test_without_a_penalty_it_keeps_its_bits_and_with_a_strong_one_all_become_zero(
        strength: float, largest: float, least: float) -> None:
    w = weight(40, 30)
    one = quantization.fit("epr", w, bits=3.0)
    optimizer = torch.optim.Adam(one.parameters(), lr=2e-3)
    for _ in range(300):
        optimizer.zero_grad()
        loss = (one.tensor() - w).square().sum() + strength * one.rate() / w.numel()
        loss.backward()
        optimizer.step()
    bits = entropy(torch.from_numpy(one.encode().integers["codes"]))
    assert least <= bits <= largest


def test_half_steps_are_the_most_that_rounding_moves_a_coefficient() -> None:
    w = weight(30, 20, 3)
    one = quantization.fit("epr", w, bits=4.0)
    moved = (one.tensor().detach() - w).reshape(-1, 3) @ one.basis.T
    assert float(moved.abs().max()) <= 0.5 * float(one._steps().max()) * 1.001


def test_impossible_bits_are_a_user_error() -> None:
    for bits in (0, 17):
        with pytest.raises(UserError, match="bits"):
            quantization.fit("epr", weight(3, 3), bits=bits)
