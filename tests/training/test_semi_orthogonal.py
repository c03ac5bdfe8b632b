import numpy as np
import pytest
import torch

from asrcompress.training.semi_orthogonal import constrain


def factor(rows: int, columns: int, values: np.ndarray, seed: int = 0) -> np.ndarray:
    """A matrix with these singular values and random singular vectors."""
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.standard_normal((n, len(values))))[0] for n in (rows, columns))
    return left * values @ right.T


def step(matrix: np.ndarray) -> np.ndarray:
    weight = torch.from_numpy(matrix.copy())
    constrain(weight)
    return weight.numpy()


def error(matrix: np.ndarray) -> float:
    """|| P / s^2 - I || with the floating s^2 = tr(P P^T) / tr(P)."""
    p = matrix @ matrix.T
    return float(np.linalg.norm(p / (np.trace(p @ p.T) / np.trace(p)) - np.eye(len(p))))


@pytest.mark.parametrize("spread", [0.02, 0.1, 0.5, 1.0])
def test_step_is_the_published_update(spread: float) -> None:
    m = factor(20, 50, np.exp(spread * np.random.default_rng(1).standard_normal(20)))
    p = m @ m.T
    s2 = np.trace(p @ p.T) / np.trace(p)
    q = np.trace(p @ p.T) * 20 / np.trace(p) ** 2
    nu = 1 / 8 * (1 / 4 if q > 1.1 else 1 / 2 if q > 1.02 else 1)
    np.testing.assert_allclose(step(m), m - 4 * nu / s2 * (p - s2 * np.eye(20)) @ m, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_floating_scale_does_not_fight_the_scale(scale: float) -> None:
    m = scale * factor(12, 30, np.linspace(0.5, 1.5, 12))
    change = step(m) - m
    assert np.abs(change).max() > 1e-3 * scale
    assert abs(np.trace(m @ change.T)) < 1e-12 * np.trace(m @ m.T)  # golden test 3


def test_singular_values_follow_the_cubic() -> None:
    values = np.linspace(0.97, 1.04, 20)  # near enough that nu is the full 1/8
    s = np.sqrt((values**4).sum() / (values**2).sum())
    unit = values / s
    found = np.linalg.svd(step(factor(20, 40, values)), compute_uv=False)
    np.testing.assert_allclose(found, np.sort(s * (1.5 * unit - 0.5 * unit**3))[::-1], atol=1e-12)


def test_convergence_is_quadratic_from_a_random_start() -> None:
    m = np.random.default_rng(0).standard_normal((96, 1536)) / np.sqrt(1536)
    errors = []
    for _ in range(12):
        errors.append(error(m))
        m = step(m)
    # methods.md, 2b, for another seed: small steps while the singular values are spread, then full ones.
    np.testing.assert_allclose(np.log(errors[:6]), np.log([2.4, 1.3, 0.16, 4.8e-3, 7.7e-6, 3e-11]), atol=1.5)
    # Near the solution a singular value 1 + d becomes 1 - 1.5 d^2, and with it an entry e of the error 0.75 e^2.
    assert all(after < 0.76 * before**2 for before, after in zip(errors[2:4], errors[3:5], strict=True))
    values = np.linalg.svd(m, compute_uv=False)
    assert values.max() / values.min() - 1 < 1e-9


def test_kernels_and_tall_matrices_are_changed_in_place() -> None:
    kernel = torch.randn(6, 10, 2)
    expected = step(kernel.reshape(6, 20).numpy())
    pointer = kernel.data_ptr()
    constrain(kernel)
    assert kernel.data_ptr() == pointer
    np.testing.assert_allclose(kernel.reshape(6, 20).numpy(), expected, atol=1e-6)
    tall = torch.randn(20, 6, requires_grad=True)
    expected = step(tall.detach().T.contiguous().numpy()).T
    constrain(tall)
    np.testing.assert_allclose(tall.detach().numpy(), expected, atol=1e-6)
    zero = torch.zeros(3, 5)
    constrain(zero)
    assert (zero == 0).all()
