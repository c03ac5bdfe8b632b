"""epr: integers under a learned prior, trained for the bits they will take (entropy-penalised reparameterisation).

Oktay, Balle, Singh and Shrivastava, ICLR 2020. A tensor is step x round(coefficients / step); of a kernel, they are
the coefficients of an orthonormal real DFT over its taps, with a step for each. The task sees the rounded coefficients,
gradients straight through; the rate sees uniform noise instead of rounding, under a prior that is a mixture of two
logistic distributions around zero for each step. Ours: coefficients are kept in the unit of the weight, not of the
step, so that the learning rate of a fine-tuning suits them, and `PACE` lets steps and priors move as fast.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asrcompress.compression.quantization.base import Encoded, Quantizer, normalized, require_shapes
from asrcompress.options import require

PACE = 20.0  # steps and priors are exp(PACE x parameter): a thousand steps of Adam move them by factors, not percents
FEWEST = 1.0  # bits to start from: at less nearly all codes are 0
TINY = float(torch.finfo(torch.float32).tiny)  # the smallest step
MOST = 2.0**24  # no code is beyond
SAMPLE = 2**16  # values from which the rate is estimated


def real_dft(taps: int) -> NDArray[np.float32]:
    """The orthonormal real DFT: (frequency, time), rows 1/sqrt(n), then cosine and sine of each frequency in turn."""
    time = np.arange(taps)
    rows = [np.full(taps, 1 / math.sqrt(taps))]
    for k in range(1, taps // 2 + 1):
        angle = 2 * np.pi * k * time / taps
        last = 2 * k == taps
        rows.append(np.cos(angle) * math.sqrt((1 if last else 2) / taps))
        rows += [] if last else [np.sin(angle) * math.sqrt(2 / taps)]
    return np.array(rows).astype(np.float32)


def entropy(codes: Tensor) -> float:
    """Empirical bits per symbol of an array of codes."""
    frequency = torch.unique(codes, return_counts=True)[1].double() / max(1, codes.numel())
    return float(-(frequency * frequency.log2()).sum())


def step_for(values: Tensor, bits: float) -> float:
    """The step at which the rounded values have this empirical entropy, by bisection of its logarithm."""
    spread = float(values.double().square().mean().sqrt()) or 1.0
    low, high = math.log(spread) - 12, math.log(spread) + 3
    sample = values.flatten()[:: max(1, values.numel() // SAMPLE)].double()
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if entropy((sample / math.exp(middle)).round()) > bits else (low, middle)
    return math.exp(high)


class Epr(Quantizer):
    """Integers under a learned prior; see the module."""

    @dataclass(frozen=True)
    class Options:
        """`bits` per value: the rate to start from (at least `FEWEST`) and what training aims at."""

        bits: float = 2.0

        def __post_init__(self) -> None:
            require(0 < self.bits <= 16, f"quantization epr: bits is {self.bits:g}; it is the target per value, above "
                                         "0 and at most 16")

    name = "epr"
    options: Options
    basis: Tensor

    def __init__(self, shape: Sequence[int], options: Options) -> None:
        super().__init__(shape, options)
        self.bits = options.bits
        taps = self.shape[-1] if len(self.shape) > 2 else 1
        self.coefficients = nn.Parameter(torch.zeros(self.shape, dtype=torch.float32))  # in the unit of the weight
        self.log_step = nn.Parameter(torch.zeros(taps, dtype=torch.float32))
        self.log_width = nn.Parameter(torch.zeros(taps, 2, dtype=torch.float32))  # of the two logistics, in steps
        self.weight_logit = nn.Parameter(torch.zeros(taps, dtype=torch.float32))
        self.register_buffer("basis", torch.from_numpy(real_dft(taps)), persistent=False)

    @classmethod
    @torch.no_grad()
    def fit(cls, tensor: Tensor, options: Options, seed: int = 0) -> "Epr":
        one = cls(tensor.shape, options)
        taps = len(one.log_step)
        coefficients = tensor.cpu().reshape(-1, taps) @ one.basis.T
        one.coefficients.copy_(coefficients.reshape(one.shape))
        step = torch.tensor([step_for(coefficients, max(options.bits, FEWEST))] * taps, dtype=torch.float32)
        step.clamp_(TINY)  # one for all taps: equal noise costs least
        unit, power = normalized(coefficients)
        width = (unit.square().mean(0).sqrt() * power / step).clamp_min(0.05) * math.sqrt(3) / math.pi
        one.log_step.copy_(step.log() / PACE)
        one.log_width.copy_(torch.stack([width.log(), (0.3 * width).log()], 1) / PACE)
        return one

    def _steps(self) -> Tensor:
        return (PACE * self.log_step).exp().clamp(TINY, 1 / TINY)

    def tensor(self) -> Tensor:
        steps = self._steps()
        phi = self._phi(steps)
        coefficients = (phi + (phi.round() - phi).detach()) * steps
        exact = phi.detach().round() * steps.detach()
        return self._synthesis(coefficients + (exact - coefficients).detach())

    def _phi(self, steps: Tensor) -> Tensor:
        """(values / taps, taps): coefficients in steps, what is rounded; far from where an integer of 64 bits ends."""
        return (self.coefficients.reshape(-1, len(steps)) / steps).clamp(-MOST, MOST)

    def _synthesis(self, coefficients: Tensor) -> Tensor:
        """Sum over frequencies one after the other: the same float operations as in `decode`, so the same result."""
        total = coefficients[:, :1] * self.basis[0]
        for k in range(1, coefficients.shape[1]):
            total = total + coefficients[:, k : k + 1] * self.basis[k]
        return total.reshape(self.shape)

    def rate(self) -> Tensor:
        """Bits of the whole tensor under the prior, estimated on a sample of it.

        The gradient is that of uniform noise instead of rounding; the value is that of the rounded ones, which near and
        below one bit take far less: a target held by the noisy rate was undershot three times at 0.5 bits.
        """
        sample = self.coefficients.reshape(-1, len(self.log_step))
        rows = max(1, SAMPLE // sample.shape[1])
        if len(sample) > rows:
            sample = sample[torch.randint(len(sample), (rows,), device=sample.device)]
        phi = sample / self._steps()
        noisy = self.code_length(phi + torch.rand_like(phi) - 0.5).sum()
        bits = noisy + (self.code_length(phi.detach().round()).sum() - noisy).detach()
        return bits * (self.coefficients.numel() / sample.numel())

    def code_length(self, phi: Tensor) -> Tensor:
        """-log2 of the probability of the interval phi +- 1/2 under the prior; phi (..., taps)."""
        widths = (PACE * self.log_width).exp()
        first = torch.sigmoid(PACE * self.weight_logit)
        magnitude = phi.abs()  # both tails alike; on the left one, differences of sigmoids lose nothing
        parts = [torch.sigmoid((0.5 - magnitude) / w) - torch.sigmoid((-0.5 - magnitude) / w) for w in widths.unbind(1)]
        return -(first * parts[0] + (1 - first) * parts[1]).clamp_min(1e-9).log2()

    @torch.no_grad()
    def parts(self) -> Encoded:
        steps = self._steps()
        codes = self._phi(steps).round().long().reshape(self.shape)
        return Encoded({"codes": codes.cpu().numpy()}, {"steps": steps.cpu().numpy()})

    @staticmethod
    def decode(encoded: Encoded, shape: Sequence[int]) -> NDArray[np.float32]:
        require_shapes(encoded, steps=(shape[-1] if len(shape) > 2 else 1,), codes=shape)
        steps = encoded.floats["steps"].astype(np.float32)
        basis = real_dft(len(steps))
        coefficients = encoded.integers["codes"].reshape(-1, len(steps)).astype(np.float32) * steps
        total = coefficients[:, :1] * basis[0]
        for k in range(1, len(steps)):
            total = total + coefficients[:, k : k + 1] * basis[k]
        return total.reshape(shape)
