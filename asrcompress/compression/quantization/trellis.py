"""trellis: trellis-coded (dependent) quantization after training, for the range coder.

Two quantizers with points at the even multiples of a step (Q0), and at the odd ones and zero (Q1), take turns: of 8 or
more states, of which the odd ones use Q1, the next follows from the parity of each code. Together they have twice the
points for the same bits, and a Viterbi search takes the path of the least squared error plus LAGRANGE bits: better than
rounding by 1.09 dB with 8 states and 1.27 dB with 64 at many bits, of 1.53 dB that are possible, and by more at few.
What a code costs is estimated from the codes of rows and columns of the same size, as `range` has tables for them; the
search is in `_trellis_search`.
Where weights side by side are alike, as along the frequencies and taps of a first layer, the codes are those of cosine
coefficients, see `_cosine`: the transform keeps the squared error.

Marcellin and Fischer, IEEE Trans. Communications 1990; for networks Haase et al., ICIP 2020, and ISO/IEC 15938-17, with
8 states; the larger trellises are Ungerboeck's one-dimensional codes, IEEE Trans. Information Theory 1982. Training
moves the step only: no gradient goes straight through codes that depend on others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asrcompress.compression.quantization import _cosine as cosine
from asrcompress.compression.quantization._trellis_search import (
    EIGHT,
    MOST,
    STATES,
    UNGERBOECK,
    Sample,
    points,
    quantize,
    step_for,
)
from asrcompress.compression.quantization.base import Encoded, Quantizer, normalized, require_shapes
from asrcompress.options import require


class Trellis(Quantizer):
    """Codes that depend on those before, and one step; see the module."""

    @dataclass(frozen=True)
    class Options:
        """About `bits` per value, by the entropy of the codes; or the `step` that is given, 0: the one for `bits`.

        More `states` make the error less and the search longer; see the module. `cosine` are the axes of the transform,
        "1,2" or "none" for example; "auto": those that save bits.
        """

        bits: float = 4.0
        step: float = 0.0
        states: int = STATES
        cosine: str = "auto"

        def __post_init__(self) -> None:
            require(0.05 <= self.bits <= 12, f"quantization trellis: bits is {self.bits:g}; it is 0.05 to 12 per value")
            require(0 <= self.step < float("inf"), f"quantization trellis: step is {self.step:g}; it is above 0, or 0 "
                                                   "for the one that takes so many bits")
            require(type(self.states) is int and self.states in (8, *UNGERBOECK),
                    f"quantization trellis: states is {self.states!r}; it is 8, 16, 32, 64 or 128")
            require(self.cosine in ("auto", "none") or all(axis.isdecimal() for axis in self.cosine.split(",")),
                    f"quantization trellis: cosine is {self.cosine!r}; it is auto, none or axes such as 1,2")

        def axes(self) -> list[int]:
            """Of a tensor that has its codes."""
            return [] if self.cosine in ("auto", "none") else [int(axis) for axis in self.cosine.split(",")]

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
        unit, power = normalized(tensor.cpu())
        axes = cosine.chosen(unit.numpy()) if options.cosine == "auto" else options.axes()
        require(cosine.allowed(tensor.shape, axes), f"quantization trellis: cosine is {options.cosine!r}, for a tensor "
                f"of shape {tuple(tensor.shape)}; it is at most {cosine.AXES} axes after the first, ascending, of 2 to "
                f"{cosine.LONGEST} places")
        one = cls(tensor.shape, replace(options, cosine=",".join(map(str, axes)) or "none"))
        values = cosine.forward(unit.numpy(), axes)
        if values.any():
            sample = Sample(values, options.states)
            step = options.step / power or step_for(values, bits=options.bits, sample=sample)
            require(step * MOST > np.abs(values).max(),
                    f"quantization trellis: step is {options.step:g}, too small for a tensor that holds "
                    f"{float(tensor.abs().max()):g}")
            codes, _, _ = quantize(values, step, sample)
            one.codes.copy_(torch.from_numpy(codes))
            one._decode()
            made = one.points.double().flatten()
            best = made @ unit.double().flatten() / (made @ made).clamp_min(1e-30)
            one.step.fill_(power * float(best))
        return one

    @classmethod
    def build(cls, spec: Mapping[str, Any]) -> "Quantizer":
        return super().build({"states": len(EIGHT), "cosine": "none", **spec})  # as it was before these were written

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._decode()

    def _decode(self) -> None:
        made = points(self.codes.cpu().numpy(), self.options.states)
        self.points.copy_(torch.from_numpy(cosine.inverse(made, self.options.axes())))

    def tensor(self) -> Tensor:
        return self.points * self.step

    def parts(self) -> Encoded:
        return Encoded({"codes": self.codes.cpu().numpy().astype(np.int64)}, {"step": self.step.detach().cpu().numpy()},
                       {"states": self.options.states, **({"cosine": axes} if (axes := self.options.axes()) else {})})

    @staticmethod
    def decode(encoded: Encoded, shape: Sequence[int]) -> NDArray[np.float32]:
        require_shapes(encoded, step=(1,), codes=shape)
        codes = encoded.integers["codes"]
        if codes.size and not -MOST < codes.min() <= codes.max() < MOST:
            raise ValueError(f"codes from {codes.min()} to {codes.max()}")
        states = encoded.spec.get("states", len(EIGHT))
        if type(states) is not int or states not in (8, *UNGERBOECK):
            raise ValueError(f"a trellis of {states!r} states")
        axes = encoded.spec.get("cosine", [])
        if not cosine.allowed(shape, axes):
            raise ValueError(f"a cosine transform of a tensor {tuple(shape)} along {axes!r}")
        made = cosine.inverse(points(codes, states).reshape(shape), axes).astype(np.float32)
        return made * encoded.floats["step"]
