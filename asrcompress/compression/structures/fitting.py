"""How members of a family are found: truncated SVD, least squares by conjugate gradients, descent, random factors."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from asrcompress.compression.structures.base import Structure, exact


def truncated_svd(matrix: Tensor, rank: int, split: float = 0.5) -> tuple[Tensor, Tensor]:
    """The nearest matrix of this rank, in two factors: (m, n) -> left (m, rank), right (rank, n), in its dtype.

    left = U_r S_r^split and right = S_r^(1 - split) V_r^T; at the default both have the same Frobenius norm. The error
    is s_(r+1) in the spectral norm and the root of the sum of the dropped s^2 in the Frobenius norm.
    Eckart and Young, "The approximation of one matrix by another of lower rank", Psychometrika 1936.
    """
    u, s, vh = torch.linalg.svd(exact(matrix), full_matrices=False)
    left, right = u[:, :rank] * s[:rank] ** split, s[:rank, None] ** (1 - split) * vh[:rank]
    return left.to(matrix.dtype), right.to(matrix.dtype)


def output_energy(weight: Tensor, moments: Tensor) -> float:
    """E|W x|^2 = tr(W C W^T), of a weight (out, in) or (out, in, taps) and the moments C = E[x x^T] of its inputs."""
    rows = weight.flatten(1).double()
    return float((rows @ moments.to(rows) * rows).sum())


def relative_error(made: Tensor, weight: Tensor) -> float:
    """|W' - W| / |W| in the Frobenius norm of tensors of one shape, in float64; of zeros |W'|."""
    wanted = weight.double()
    return float((made.double() - wanted).norm()) / (float(wanted.norm()) or 1.0)


def in_range(weight: Tensor) -> tuple[Tensor, float]:
    """A weight, in float32 at least, whose squares float32 holds, and the power of two that makes it the given one.

    That is 1, and the weight itself, unless its largest absolute value is below 2^-40 or above 2^40.
    """
    largest = float(weight.abs().max())
    if largest == 0 or 2.0**-40 <= largest <= 2.0**40:
        return exact(weight), 1.0
    exponent = math.frexp(largest)[1]
    return (weight.double() * 2.0**-exponent).to(exact(weight).dtype), 2.0**exponent


def normalized(weight: Tensor) -> tuple[Tensor, float]:
    """The weight with a mean square of 1, in float32 at least, and its root mean square; a weight of zeros and 1."""
    weight = exact(weight)
    scale = float(weight.double().square().mean().sqrt()) or 1.0
    return weight / scale, scale


@torch.no_grad()
def draw(factors: Sequence[Tensor], variance: float, seed: int) -> None:
    """Fill factors with normal values, in turn, so that all have about the same Frobenius norm.

    `variance` is that of one term of their product: of one entry of each, multiplied.
    """
    norm = (variance * math.prod(factor.numel() for factor in factors)) ** (0.5 / len(factors))
    generator = torch.Generator().manual_seed(seed)
    for factor in factors:
        factor.normal_(0, norm / math.sqrt(factor.numel()), generator=generator)


@torch.enable_grad()
def descend(layer: Structure, target: Tensor, steps: int) -> None:
    """Lower |layer.dense() - target|^2 by `steps` of L-BFGS on all its parameters, in place; they never end up worse.

    All parameters should be of about the same size, hence the target `normalized`.
    Liu and Nocedal, "On the limited memory BFGS method for large scale optimization", Mathematical Programming 1989.

    The target has the shape of the weight.
    """
    parameters = list(layer.parameters())

    def error() -> Tensor:
        return (layer.dense() - target).square().sum()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = error()
        loss.backward()
        return loss.detach()

    with torch.no_grad():
        start, first = [p.clone() for p in parameters], float(error())
    if steps < 1 or first == 0:
        return
    optimizer = torch.optim.LBFGS(parameters, max_iter=steps, max_eval=steps * 5 // 4 + 1, history_size=10,
                                  tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe")
    optimizer.step(closure)
    optimizer.zero_grad()
    with torch.no_grad():
        if not float(error()) <= first:  # nor where it is not a number
            for parameter, old in zip(parameters, start, strict=True):
                parameter.copy_(old)


def least_squares(linear: Callable[[Tensor], Tensor], target: Tensor, count: int, steps: int = 50) -> Tensor:
    """The vector x (count,) for which linear(x) is nearest to `target`, by conjugate gradients from zero.

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
