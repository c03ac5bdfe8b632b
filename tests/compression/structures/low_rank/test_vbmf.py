"""Against scipy's root finder, a brute-force search of the free energy, and matrices whose rank is known."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, minimize

from asrcompress.compression.structures.low_rank._vbmf import evb_edge, free_energy, noise_variance, vbmf_rank


def noisy(rows: int, columns: int, rank: int, noise: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns))
    return signal + noise * rng.standard_normal((rows, columns))


def singular_values(matrix: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.linalg.svd(matrix, compute_uv=False))


@pytest.mark.parametrize("alpha", [0.01, 0.3, 1.0])
def test_the_edge_is_scipys_root(alpha: float) -> None:
    root = brentq(lambda t: math.log(t + 1) / t + math.log(t / alpha + 1) / (t / alpha) - 1, 1e-6, 10)
    assert evb_edge(alpha) == pytest.approx((1 + root) * (1 + alpha / root), rel=1e-9)
    if alpha == 1:
        assert root == pytest.approx(2.5129, abs=1e-4)


def least_free_energy(value: float, rows: int, columns: int, variance: float) -> float:
    """Of one component, over the means and variances of its two posteriors; without it the free energy is 0.

    The prior variances are at their optimum, so each term is a logarithm (Nakajima et al. 2013, problem 2).
    """
    def energy(p: np.ndarray) -> float:
        a, (sa, sb) = np.exp(p[0]), np.exp(p[1:3])
        b = np.exp(p[3])
        one, two = a * a + rows * sa, b * b + columns * sb
        return (rows * np.log(one / (rows * sa)) + columns * np.log(two / (columns * sb))
                + (one * two - 2 * a * b * value) / variance)

    starts = [[0.5 * np.log(value), math.log(scale), math.log(scale), 0.5 * np.log(value)] for scale in (0.01, 0.1)]
    options = {"maxiter": 20000, "maxfev": 20000, "xatol": 1e-9, "fatol": 1e-10}
    return min(minimize(energy, s, method="Nelder-Mead", options=options).fun for s in starts)


def test_a_component_is_kept_exactly_where_its_free_energy_is_negative() -> None:
    rows, columns, variance = 6, 15, 0.7
    threshold = math.sqrt(columns * variance * evb_edge(rows / columns))
    assert least_free_energy(1.01 * threshold, rows, columns, variance) < -1e-3
    assert least_free_energy(0.99 * threshold, rows, columns, variance) > -1e-6


@pytest.mark.parametrize("shape", [(60, 200), (200, 60), (100, 100)])
@pytest.mark.parametrize("rank", [0, 1, 9])
def test_the_rank_of_a_noisy_matrix_is_found(shape: tuple[int, int], rank: int) -> None:
    assert vbmf_rank(singular_values(noisy(*shape, rank, 0.5)), *shape) == rank


def test_the_noise_is_estimated_and_its_free_energy_is_the_least() -> None:
    rows, columns, noise = 80, 120, 0.3
    squares = singular_values(noisy(rows, columns, 5, noise)).square() / columns
    edge = evb_edge(rows / columns)
    found = noise_variance(squares, rows / columns, edge)
    assert math.sqrt(found) == pytest.approx(noise, rel=0.05)
    grid = torch.linspace(0.5 * found, 2 * found, 1001, dtype=torch.float64)
    energies = free_energy(squares, grid, rows / columns, edge)
    assert float(free_energy(squares, torch.tensor([found]), rows / columns, edge)) <= float(energies.min()) + 1e-9


def test_matrices_without_noise() -> None:
    assert vbmf_rank(torch.zeros(5), 5, 8) == 0
    assert vbmf_rank(singular_values(noisy(20, 30, 3, 0.0)), 20, 30) == 3
