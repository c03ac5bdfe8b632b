"""The rank of a matrix that was observed in noise, by analytic empirical variational Bayes.

Nakajima, Sugiyama, Babacan and Tomioka, "Global analytic solution of fully-observed variational Bayesian matrix
factorization", JMLR 2013; Nakajima, Tomioka, Sugiyama and Babacan, "Condition for perfect dimensionality recovery by
variational Bayesian PCA", JMLR 2015.
"""

import math

import torch
from torch import Tensor


def vbmf_rank(singular: Tensor, rows: int, columns: int) -> int:
    """How many singular values (descending, all of them) of a matrix rows x columns stand out of white noise.

    The variance s2 of the noise is estimated too. With L <= M the two sides, a value is kept above sqrt(M s2 x).
    """
    short, long = sorted((rows, columns))
    squares = singular.double().square() / long
    edge = evb_edge(short / long)
    if not squares.sum() > 0:
        return 0
    return int((squares > edge * noise_variance(squares, short / long, edge)).sum())


def evb_edge(alpha: float) -> float:
    """x of the threshold sqrt(M s2 x) for alpha = L / M: the root t of phi(t) + phi(t / alpha), then x(t)."""
    def phi(z: float) -> float:
        return math.log1p(z) / z - 0.5

    low, high = 1e-9, 3.0  # the root is 2.513 sqrt(alpha) or a little less
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if phi(middle) + phi(middle / alpha) > 0 else (low, middle)
    return (1 + low) * (1 + alpha / low)


def noise_variance(squares: Tensor, alpha: float, edge: float) -> float:
    """The variance with the least free energy, between the bounds of the paper. `squares`: singular^2 / M, (L,)."""
    most = min(math.ceil(len(squares) / (1 + alpha)) - 1, len(squares) - 1)  # components that can be kept
    upper = float(squares.mean())
    lower = max(float(squares[most]) / edge, float(squares[most:].mean()), upper * 1e-12)
    low, high = math.log(min(lower, upper)), math.log(upper)
    for _ in range(3):  # the free energy has several minima: a fine grid, then finer ones around its best point
        grid = torch.linspace(low, high, 200, dtype=torch.float64, device=squares.device)
        best = float(grid[free_energy(squares, grid.exp(), alpha, edge).argmin()])
        step = (high - low) / 199
        low, high = max(best - step, low), min(best + step, high)
    return math.exp(best)


def free_energy(squares: Tensor, variances: Tensor, alpha: float, edge: float) -> Tensor:
    """Up to constants, at each of the variances (n,): the sum of psi_0 over all values and of psi_1 over those kept."""
    x = squares.clamp_min(1e-300) / variances[:, None]
    shifted = x - (1 + alpha)
    tau = (shifted + (shifted.square() - 4 * alpha).clamp_min(0).sqrt()) / 2
    kept = torch.log1p(tau) + alpha * torch.log1p(tau / alpha) - tau
    return (x - x.log() + torch.where(x > edge, kept, torch.zeros_like(x))).sum(1)
