"""What every quantization is: a parametrization that makes a tensor from what the file will hold."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asrcompress import options as options_module
from asrcompress.errors import UserError

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class NoOptions:
    """The options of a quantization that has none."""


@dataclass(frozen=True)
class Encoded:
    """A tensor as it is stored.

    `integers` go through a coder, each array with its shape; `floats` (float32 or float16: scales, centroids) are
    stored as they are; `spec` is what else `decode` needs, plain JSON.
    """

    integers: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    floats: dict[str, NDArray[np.floating]] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)


def normalized(tensor: Tensor) -> tuple[Tensor, float]:
    """(tensor / p, p) for a power of two p: exact, below 1, and so that squares neither overflow nor vanish."""
    power = 2.0 ** math.frexp(float(tensor.abs().max()) if tensor.numel() else 1.0)[1]
    return (tensor.double() / power).float(), power


def require_shapes(encoded: Encoded, **shapes: Sequence[int]) -> None:
    """ValueError unless these parts have these shapes: of others, a few bytes could decode to a tensor of any size."""
    for key, shape in shapes.items():
        found = (encoded.integers[key] if key in encoded.integers else encoded.floats[key]).shape
        if found != tuple(shape):
            raise ValueError(f"its {key} has shape {found}, not {tuple(shape)}")


class Quantizer(nn.Module):
    """Base of every quantization. It stands where a parameter stood (`quantization.attach`) and makes it when asked.

    `tensor()` is what `decode` will give back, while gradients reach what is trained, straight through where rounding
    has none. What training changes are parameters; what it must not are buffers. `options` is an `Options` of the
    class. `dtype` is that of the parameter, and what `model.half()` changes; the state itself stays in float32.
    """

    name = ""
    Options: ClassVar[type] = NoOptions
    row_scale: Tensor | None  # (rows,), what folding a BatchNorm leaves; only on the way to a packed file

    def __init__(self, shape: Sequence[int], options: Any) -> None:
        super().__init__()
        self.shape = tuple(int(n) for n in shape)
        self.options = options
        self.dtype = torch.float32
        self.register_buffer("row_scale", None)

    @classmethod
    def allocate(cls, tensors: Mapping[str, Tensor], options: Any) -> dict[str, Any]:
        """The `Options` of each tensor of a model, by path; most quantizations treat all alike."""
        return dict.fromkeys(tensors, options)

    @classmethod
    def fit(cls, tensor: Tensor, options: Any, seed: int = 0) -> "Quantizer":
        """The quantizer whose tensor is nearest to a trained one: float32, finite, of any shape."""
        raise NotImplementedError

    @classmethod
    def build(cls, spec: Mapping[str, Any]) -> "Quantizer":
        """The quantizer with this `spec()`, its state still to be loaded. Errors: UserError for an unknown key."""
        rest = dict(spec)
        shape, dtype = rest.pop("shape"), rest.pop("dtype", "float32")
        if dtype not in DTYPES:
            raise UserError(f"quantization {cls.name}: dtype is {dtype!r}; it is one of {', '.join(DTYPES)}")
        one = cls(shape, options_module.make(cls.Options, rest, f"quantization {cls.name}"))
        one.dtype = DTYPES[dtype]
        return one

    def spec(self) -> dict[str, Any]:
        """The plain JSON values from which `build` makes the same module: shape, options, dtype if not float32."""
        dtype = {} if self.dtype == torch.float32 else {"dtype": str(self.dtype).removeprefix("torch.")}
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self.options).items()}
        return {"shape": list(self.shape), **dtype, **plain}

    def tensor(self) -> Tensor:
        """The tensor, of `self.shape`, float32."""
        raise NotImplementedError

    def forward(self) -> Tensor:
        """The parameter, of `self.shape` and `self.dtype`."""
        tensor = self.tensor()
        if self.row_scale is not None:
            tensor = tensor * self.row_scale.view(-1, *[1] * (tensor.dim() - 1))
        return tensor.to(self.dtype)

    @torch.no_grad()
    def scale_rows(self, scale: Tensor) -> None:
        """Multiply the rows of the tensor by `scale` (rows,), exactly: what is stored of the tensor stays as it is."""
        self.row_scale = scale if self.row_scale is None else self.row_scale * scale

    def encode(self) -> Encoded:
        """What the packed file holds. Errors: UserError where the state is not finite, as after a failed training."""
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.parameters()):
            raise UserError(f"a tensor {self.shape} with quantization {self.name} holds values that are not finite; "
                            "take an earlier checkpoint of the model")
        return self.parts()

    def parts(self) -> Encoded:
        """What `encode` gives; the state is finite."""
        raise NotImplementedError

    @staticmethod
    def decode(encoded: Encoded, shape: Sequence[int]) -> NDArray[np.float32]:
        """The tensor again, bit for bit what `tensor()` gave; ValueError where the parts contradict each other."""
        raise NotImplementedError

    def rate(self) -> Tensor | None:
        """Estimated bits of the coded tensor, differentiable, for training under a size; None: nothing to train for."""
        return None

    @torch.no_grad()
    def advance(self, progress: float) -> None:
        """Called before each training step with the fraction of the training that is done (0 to 1): schedules."""

    def _apply(self, fn: Any, recurse: bool = True) -> "Quantizer":
        """`model.to(...)`: devices are those of the state, a dtype is that of the tensor that it makes."""
        def moved(tensor: Tensor) -> Tensor:
            new = fn(tensor)
            return new if new.dtype == tensor.dtype else tensor.to(new.device)

        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        return super()._apply(moved, recurse)

    def right_inverse(self, tensor: Tensor) -> tuple[()]:  # parametrize then keeps nothing of the original
        """Nothing: the quantizer holds what the tensor was made of."""
        return ()
