"""What every structure is: a weight that is made from fewer parameters."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from asrcompress.convolution import conv1d
from asrcompress.errors import UserError

T = TypeVar("T")


class CannotShrink(UserError):
    """A family cannot get under the size that was asked for; the sentence says the smallest it can reach."""


class Allotment(NamedTuple):
    """What one layer gets: arguments of `fit` and `init`. size None: the options alone say how much is kept."""

    size: float | None
    options: Any  # the family's Options


class RateDistortion(NamedTuple):
    """What more parameters give: step n costs `cost` of them and lowers the squared error by `gains[n]`."""

    gains: Tensor  # (steps,), descending, float64
    cost: int
    energy: float  # the squared error without any step: the weight's squared Frobenius norm
    choose: Callable[[int], Any]  # the family's Options that stand for the first n steps


class Candidate(NamedTuple):
    """One way to make a layer: what it stores, a bound of its relative error, and the family's Options that say it."""

    num_parameters: int
    error: float
    options: Any


class Structure(nn.Module):
    """Base of every structure. `shape` is that of the weight: (out, in) or (out, in, taps).

    A family has `Options`, a frozen dataclass. It says how a member is made (`fit`, `init`, `min_parameters`), what
    weight it stands for (`dense`), and what rebuilds it without its parameters (`spec`). Where it knows a faster way
    than multiplying by `cached()`, it overrides `forward`, `conv1d` and `macs`; where its rows can be scaled in place,
    `scale_rows`. Where the columns of its weight (out, in) can, it has `scale_columns(scale)`, for a scale (in,).
    """

    name: ClassVar[str] = ""
    Options: ClassVar[type]
    from_tables: ClassVar[bool] = False  # made from hash tables, so that a spec has to say which `hash` makes them
    not_after: ClassVar[str] = ""  # why no trained model can be compressed with it, and what to do: a predicate

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(int(n) for n in shape)
        self._kept: dict[str, tuple[list[Any], Any]] = {}

    @classmethod
    def fit(cls, weight: Tensor, options: Any, size: float | None = None, seed: int = 0) -> "Structure":
        """The member nearest to a trained weight, in its dtype and on its device.

        It stores at most `size` times as many parameters as the weight has; with size None the options say how much.
        Errors: `CannotShrink` where the size cannot be reached, UserError where the options do not suit the shape.
        """
        raise NotImplementedError

    @classmethod
    def init(cls, shape: Sequence[int], options: Any, size: float | None = None, seed: int = 0) -> "Structure":
        """A random member whose weight has the variance of a dense layer's start (`dense_std`). Errors: as `fit`."""
        raise NotImplementedError

    @classmethod
    def min_parameters(cls, shape: Sequence[int], options: Any) -> int:
        """The fewest parameters with which a member of this shape can be stored."""
        raise NotImplementedError

    @classmethod
    def rate_distortion(cls, weight: Tensor, options: Any, size: float) -> RateDistortion:
        """How the error falls as parameters are added, at best near `size`. Errors: UserError where it has no order.

        The weight is (out, in) or (out, in, taps).
        """
        raise UserError(f"structure {cls.name} has no order among its parameters to share out; use budget=uniform")

    @classmethod
    def error_bounds(cls, weight: Tensor, options: Any) -> list[Candidate]:
        """Every way to make it, each with a bound of its relative error. Errors: UserError where none is known.

        The weight is (out, in) or (out, in, taps).
        """
        raise UserError(f"structure {cls.name} has no error bounds; use budget=uniform")

    def dense(self) -> Tensor:
        """The weight it stands for, of `self.shape`."""
        raise NotImplementedError

    def cached(self) -> Tensor:
        """`dense()`, which at inference is made once and kept until the parameters change (see `kept`).

        The shape is that of the weight.
        """
        return self.kept(self.dense, list(self.parameters()))

    def kept(self, make: Callable[[], T], parameters: Sequence[Tensor]) -> T:
        """What `make`, a method, derives from these parameters: at inference made once and kept until they change.

        Where gradients go to them it is made in every call, and what was kept is freed. A change that torch does not
        count, one through `.data`, goes unseen until `train()` or `eval()`. Parameters may have any shapes.
        """
        if needs_grad(parameters):
            self._kept.clear()
            return make()
        state, name = state_of(parameters), make.__name__
        if name not in self._kept or self._kept[name][0] != state:
            self._kept[name] = state, make()
        return self._kept[name][1]  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> "Structure":
        """As of any module; what was derived from the parameters is made anew."""
        self._kept.clear()
        return super().train(mode)

    def spec(self) -> dict[str, Any]:
        """The plain JSON values from which `structures.build` makes the same structure: arguments of the class."""
        return {"shape": list(self.shape)}

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """(..., in) -> (..., out), for a matrix."""
        return functional.linear(x, self.cached(), bias)

    def conv1d(self, x: Tensor, stride: int = 1, padding: int = 0, dilation: int = 1,
               bias: Tensor | None = None) -> Tensor:
        """(N, in, T) -> (N, out, T'), for a kernel."""
        return conv1d(x, self.cached(), bias, stride, padding, dilation)

    def num_parameters(self) -> int:
        """How many trainable parameters it stores; of those that layers share its part, so that layers add up."""
        return sum(parameter.numel() for parameter in self.parameters())

    def macs(self, frames: int, stride: int = 1) -> int:
        """Multiply-adds for `frames` rows, or frames of output of a convolution with this stride."""
        return frames * math.prod(self.shape)

    def scale_rows(self, scale: Tensor) -> bool:
        """Multiply the rows of the weight by `scale` (out,) in place; False, nothing done, where a family cannot."""
        return False


def needs_grad(parameters: Iterable[Tensor]) -> bool:
    """Whether gradients go to any of them, so that what is made of them has to be made anew in every call.

    Parameters may have any shapes.
    """
    return torch.is_grad_enabled() and any(parameter.requires_grad for parameter in parameters)


def state_of(parameters: Sequence[Tensor]) -> list[Any]:
    """What changes when what is derived from the parameters does.

    That is their storage, dtype and version, whether autocast decides the dtype of products, and inference mode, as
    what is made there can take no part in a gradient. Parameters may have any shapes.
    """
    return [torch.is_inference_mode_enabled(), *(torch.is_autocast_enabled(p.device.type) for p in parameters[:1]),
            *((p.data_ptr(), p.dtype, 0 if p.is_inference() else p._version) for p in parameters)]


@contextmanager
def error_context(path: str) -> Iterator[None]:
    """Begin a UserError that is raised inside with the path of the layer that it is about."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"{path}: {error}") from None


def exact(x: Tensor) -> Tensor:
    """In the precision in which weights are fitted and transformed: float64 stays, anything else becomes float32."""
    return x if x.dtype == torch.float64 else x.float()


def dense_std(shape: Sequence[int]) -> float:
    """Standard deviation with which torch starts a dense weight: 1 / sqrt(3 x fan-in) (`nn.Linear`, `nn.Conv1d`)."""
    return 1 / math.sqrt(3 * math.prod(shape[1:]))


def per_row(scale: Tensor, dim: int) -> Tensor:
    """(out,) -> (out, 1, ...) of `dim` dimensions, to multiply the rows of a weight."""
    return scale.view(-1, *[1] * (dim - 1))
