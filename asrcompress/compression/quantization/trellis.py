"""trellis: trellis-coded (dependent) quantization after training, for the range coder.

Two quantizers with points at the even multiples of a step (Q0), and at the odd ones and zero (Q1), take turns: eight
states, of which the odd ones use Q1, follow the parity of each code. Together they have twice the points for the same
bits, and a Viterbi search takes the path of the least squared error plus LAGRANGE bits: 1.1 dB better than rounding at
many bits, and more at few. Marcellin and Fischer, IEEE Trans. Communications 1990; for networks Haase et al., ICIP
2020, and ISO/IEC 15938-17. Training moves the step only: no gradient goes straight through codes that depend on others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asrcompress.compression.quantization.base import Encoded, Quantizer, normalized
from asrcompress.options import require

NEXT = np.array([[0, 2], [7, 5], [1, 3], [6, 4], [2, 0], [5, 7], [3, 1], [4, 6]])  # by state and parity of the code
LINE = 256      # values, in C order, after which the state is 0 again: lines are searched and decoded side by side
LAGRANGE = 0.2  # squared steps that a bit may cost
MOST = 2**20    # codes are below this
SAMPLE = 2**16  # values by which a step is found
_FROM = np.array([[divmod(move, 2) for move in range(16) if NEXT.flat[move] == state] for state in range(8)])

Codes = NDArray[np.int32]
Floats = NDArray[np.floating]


def points(codes: NDArray[np.integer]) -> NDArray[np.int64]:
    """Multiples of the step that codes of any shape stand for."""
    lines = _lines(codes.astype(np.int64))
    made, state = np.empty_like(lines), np.zeros(len(lines), np.int64)
    for i in range(lines.shape[1]):
        code = lines[:, i]
        made[:, i] = 2 * code - np.sign(code) * (state & 1)
        state = NEXT[state, code & 1]
    return made.ravel()[: codes.size].reshape(codes.shape)


def search(values: Floats, bits: Floats, lagrange: float = LAGRANGE) -> Codes:
    """Codes of values (in steps) with the least squared error plus `lagrange * bits[magnitude of the code]`."""
    lines = _lines(np.asarray(values, np.float32))
    codes, cost = _candidates(lines, bits * lagrange)
    total = np.full((8, len(lines)), np.inf, np.float32)
    total[0] = 0
    second = np.empty((lines.shape[1], 8, len(lines)), bool)  # of the two ways into each state
    (first_from, first_parity), (second_from, second_parity) = _FROM[:, 0].T, _FROM[:, 1].T
    for i in range(lines.shape[1]):
        first = total[first_from] + cost[i, first_from & 1, first_parity]
        other = total[second_from] + cost[i, second_from & 1, second_parity]
        np.less(other, first, out=second[i])
        total = np.minimum(first, other)
    state, every = total.argmin(0), np.arange(len(lines))
    found = np.empty(lines.shape, np.int32)
    for i in reversed(range(lines.shape[1])):
        state, parity = _FROM[state, second[i, state, every].astype(int)].T
        found[:, i] = codes[i, state & 1, parity, every]
    return found.ravel()[: values.size].reshape(values.shape)


def _lines(array: NDArray[Any]) -> NDArray[Any]:
    """(lines, LINE), zeros at the end."""
    return np.concatenate([array.ravel(), np.zeros(-array.size % LINE, array.dtype)]).reshape(-1, LINE)


def _candidates(lines: Floats, price: Floats) -> tuple[Codes, NDArray[np.float32]]:
    """Codes and costs (LINE, quantizer, parity, lines): the nearest point of each quantizer on either side."""
    size, sign = np.abs(lines.T), np.where(lines.T < 0, -1, 1).astype(np.int32)
    codes = np.empty((lines.shape[1], 2, 2, len(lines)), np.int32)
    cost = np.empty(codes.shape, np.float32)
    for quantizer in (0, 1):
        place = (size + quantizer) / 2
        near = np.rint(place).astype(np.int32)
        far = near + np.where((place > near) | (near == 0), 1, -1).astype(np.int32)
        for parity in (0, 1):
            code = np.where(near % 2 == parity, near, far)
            error = 2 * code - quantizer * (code > 0) - size
            codes[:, quantizer, parity] = code * sign
            cost[:, quantizer, parity] = error * error + price[np.minimum(code, len(price) - 1)]
    return codes, cost


def quantize(values: Floats, step: float, rounds: int = 2) -> tuple[Codes, float, float]:
    """(codes, bits a number, squared error a number), searched anew with the bits that the codes before took."""
    scaled = np.asarray(values / step, np.float32)
    codes = np.rint(scaled / 2).astype(np.int32)
    for _ in range(rounds):
        counts = np.bincount(np.abs(codes).ravel(), minlength=2) + 0.5
        bits = -np.log2(counts / counts.sum())
        bits[1:] += 1  # the sign
        codes = search(scaled, bits)
    frequencies = np.unique(codes, return_counts=True)[1] / max(1, codes.size)
    rate = float(-(frequencies * np.log2(frequencies)).sum())
    return codes, rate, float(np.square(points(codes) * step - values, dtype=np.float64).mean())


def step_for(values: Floats, *, bits: float = 0.0, error: float = 0.0) -> float:
    """The step at which a sample of the values takes `bits` each, or has that squared error each."""
    flat = values.ravel()
    lines = _lines(flat)[:: max(1, flat.size // SAMPLE)].ravel()[: flat.size]
    high = 4 * float(np.abs(flat).max())
    low = high / MOST
    for _ in range(24):
        step = (low * high) ** 0.5
        _, rate, made = quantize(lines, step, rounds=1)
        low, high = (low, step) if (rate < bits if bits else made > error) else (step, high)
    return low


class Trellis(Quantizer):
    """Codes that depend on those before, and one step; see the module."""

    @dataclass(frozen=True)
    class Options:
        """About `bits` per value, by the entropy of the codes; or the `step` that is given, 0: the one for `bits`."""

        bits: float = 4.0
        step: float = 0.0

        def __post_init__(self) -> None:
            require(0.05 <= self.bits <= 12, f"quantization trellis: bits is {self.bits:g}; it is 0.05 to 12 per value")
            require(0 <= self.step < float("inf"), f"quantization trellis: step is {self.step:g}; it is above 0, or 0 "
                                                   "for the one that takes so many bits")

    name = "trellis"
    options: Options
    codes: Tensor
    points: Tensor

    def __init__(self, shape: Sequence[int], options: Options) -> None:
        super().__init__(shape, options)
        self.step = nn.Parameter(torch.ones(1, dtype=torch.float32))
        self.register_buffer("codes", torch.zeros(self.shape, dtype=torch.int32))
        self.register_buffer("points", torch.zeros(self.shape, dtype=torch.float32), persistent=False)

    @classmethod
    @torch.no_grad()
    def fit(cls, tensor: Tensor, options: Options, seed: int = 0) -> "Trellis":
        one = cls(tensor.shape, options)
        unit, power = normalized(tensor.cpu())
        values = unit.numpy()
        if values.any():
            step = options.step / power or step_for(values, bits=options.bits)
            require(step * MOST > 1, f"quantization trellis: step is {options.step:g}, too small for a tensor that "
                                     f"holds {float(tensor.abs().max()):g}")
            codes, _, _ = quantize(values, step)
            one.codes.copy_(torch.from_numpy(codes))
            one._decode()
            made = one.points.double().flatten()
            best = made @ unit.double().flatten() / (made @ made).clamp_min(1e-30)
            one.step.fill_(power * float(best))
        return one

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._decode()

    def _decode(self) -> None:
        self.points.copy_(torch.from_numpy(points(self.codes.cpu().numpy())))

    def tensor(self) -> Tensor:
        return self.points * self.step

    def parts(self) -> Encoded:
        return Encoded({"codes": self.codes.cpu().numpy().astype(np.int64)}, {"step": self.step.detach().cpu().numpy()})

    @staticmethod
    def decode(encoded: Encoded, shape: Sequence[int]) -> NDArray[np.float32]:
        codes = encoded.integers["codes"]
        if codes.size and not -MOST < codes.min() <= codes.max() < MOST:
            raise ValueError(f"codes from {codes.min()} to {codes.max()}")
        made: NDArray[np.float32] = points(codes).astype(np.float32) * encoded.floats["step"]
        return made.reshape(shape)
