"""Fitting for the structures that have no closed form: by descent, and by conjugate gradients where it is linear.

And where the factors of a product start without a weight to fit.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from asrcompress.compression.structures.base import Structure, exact


def normalized(weight: Tensor) -> tuple[Tensor, float]:
    """The weight with a mean square of 1, in float32 at least, and its root mean square; a weight of zeros and 1."""
    weight = exact(weight)
    scale = float(weight.double().square().mean().sqrt()) or 1.0
    return weight / scale, scale


@torch.no_grad()
def draw(factors: Sequence[Tensor], variance: float, seed: int) -> None:
    """Fill factors with normal numbers, in turn, so that all have about the same Frobenius norm.

    `variance` is that of one term of their product: of one number of each, multiplied.
    """
    norm = (variance * math.prod(factor.numel() for factor in factors)) ** (0.5 / len(factors))
    generator = torch.Generator().manual_seed(seed)
    for factor in factors:
        factor.normal_(0, norm / math.sqrt(factor.numel()), generator=generator)


@torch.enable_grad()
def descend(layer: Structure, target: Tensor, steps: int) -> None:
    """Lower |layer.dense() - target|^2 by `steps` of L-BFGS on all its numbers, in place; they never end up worse.

    All numbers should be of about the same size, hence the target `normalized`.
    """
    numbers = list(layer.parameters())

    def error() -> Tensor:
        return (layer.dense() - target).square().sum()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = error()
        loss.backward()
        return loss.detach()

    with torch.no_grad():
        start, first = [n.clone() for n in numbers], float(error())
    if steps < 1 or first == 0:
        return
    optimizer = torch.optim.LBFGS(numbers, max_iter=steps, max_eval=steps * 5 // 4 + 1, history_size=10,
                                  tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe")
    optimizer.step(closure)
    optimizer.zero_grad()
    with torch.no_grad():
        if not float(error()) <= first:  # nor where it is not a number
            for number, old in zip(numbers, start, strict=True):
                number.copy_(old)


def least_squares(linear: Callable[[Tensor], Tensor], target: Tensor, count: int, steps: int = 50) -> Tensor:
    """The numbers x (count,) for which linear(x) is nearest to `target`, by conjugate gradients from zero.

    It stops at a relative gradient of the rounding error, or after `steps`: then the error is not the least, but lower
    with every step. Hestenes and Stiefel, "Methods of conjugate gradients for solving linear systems", 1952.
    """
    with torch.enable_grad():
        zero = target.new_zeros(count, requires_grad=True)
        image = linear(zero)

    def adjoint(y: Tensor) -> Tensor:
        return torch.autograd.grad(image, zero, y, retain_graph=True)[0]

    x, residual = torch.zeros_like(zero), target
    gradient = direction = adjoint(residual)
    energy = start = gradient.square().sum()
    for _ in range(steps):
        if energy <= start * torch.finfo(target.dtype).eps ** 2:
            break
        ahead = linear(direction)
        length = energy / ahead.square().sum()
        x, residual = x + length * direction, residual - length * ahead
        gradient = adjoint(residual)
        before, energy = energy, gradient.square().sum()
        direction = gradient + energy / before * direction
    return x.detach()
