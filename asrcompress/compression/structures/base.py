"""What every structure is: a weight that is made from fewer numbers."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from asrcompress.convolution import conv1d
from asrcompress.errors import UserError


class CannotShrink(UserError):
    """A family cannot get under the size that was asked for; the sentence says the smallest it can reach."""


class RateDistortion(NamedTuple):
    """What more numbers give: step n costs `cost` of them and lowers the squared error by `gains[n]`."""

    gains: Tensor  # (steps,), descending, float64
    cost: int
    energy: float  # the squared error without any step: the weight's squared Frobenius norm
    choose: Callable[[int], dict[str, Any]]  # the options of `fit` that stand for the first n steps


class Candidate(NamedTuple):
    """One way to make a layer: what it stores, a bound of its relative error, and the options of `fit` that say it."""

    num_parameters: int
    error: float
    options: dict[str, Any]


class Structure(nn.Module):
    """Base of every structure. `shape` is that of the weight: (out, in) or (out, in, taps).

    A family says how it comes to be (`fit`, `init`, `smallest`), what weight it stands for (`dense`), and what rebuilds
    it without its numbers (`spec`). Where it knows a faster way than multiplying by `cached()`, it overrides `forward`,
    `conv1d` and `macs`; where its rows can be scaled in place, `scale_rows`.
    """

    name = ""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(int(n) for n in shape)
        self._kept: tuple[list[Any], Tensor] | None = None

    @classmethod
    def fit(cls, weight: Tensor, size: float | None = None, seed: int = 0) -> "Structure":
        """The member nearest to a trained weight that stores at most `size` times as many numbers."""
        raise NotImplementedError

    @classmethod
    def init(cls, shape: Sequence[int], size: float | None = None, seed: int = 0) -> "Structure":
        """A random member whose weight has the variance of a dense layer's start (`dense_std`)."""
        raise NotImplementedError

    @classmethod
    def fit_all(cls, weights: Mapping[str, Tensor], shares: Mapping[str, Mapping[str, Any]],
                seed: int = 0) -> dict[str, "Structure"]:
        """The members for the layers of one model, by path; `shares` are the options of `fit` for each.

        Each for itself, unless a family lets layers share numbers, and with a seed of its own: layers whose numbers
        collide alike would lose alike. Left out is what had better stay dense.
        """
        made = {}
        for index, (path, weight) in enumerate(weights.items()):
            with error_context(path):
                made[path] = cls.fit(weight, seed=seed + index, **shares[path])
        return made

    @classmethod
    def init_all(cls, shapes: Mapping[str, Sequence[int]], shares: Mapping[str, Mapping[str, Any]],
                 seed: int = 0) -> dict[str, "Structure"]:
        """`fit_all` from scratch; `shares` are the options of `init` for each. Layers draw different numbers."""
        made = {}
        for index, (path, shape) in enumerate(shapes.items()):
            with error_context(path):
                made[path] = cls.init(shape, seed=seed + index, **shares[path])
        return made

    @classmethod
    def build(cls, spec: Mapping[str, Any]) -> "Structure":
        """The member with this `spec()`, its numbers still to be loaded."""
        return cls(**spec)

    @classmethod
    def min_parameters(cls, shape: Sequence[int]) -> int:
        """The fewest numbers with which a member of this shape can be stored. Takes the options of `fit`."""
        raise NotImplementedError

    @classmethod
    def rate_distortion(cls, *weight_and_size: Any, **options: Any) -> RateDistortion:
        """curve(weight, size, **options of `fit`): how the error falls as numbers are added, at best near `size`."""
        raise UserError(f"structure {cls.name} has no ordered numbers to share out; use budget=uniform")

    @classmethod
    def error_bounds(cls, *weight: Any, **options: Any) -> list[Candidate]:
        """bounds(weight, **options of `fit`): every way to make it, each with a bound of its relative error."""
        raise UserError(f"structure {cls.name} has no error bounds; use budget=uniform")

    def dense(self) -> Tensor:
        """The weight it stands for, of `self.shape`."""
        raise NotImplementedError

    def cached(self) -> Tensor:
        """`dense()`, which at inference is made once and kept until the numbers change; training frees it.

        A change that torch does not count, one through `.data`, goes unseen until `train()` or `eval()`.
        """
        numbers = list(self.parameters())
        if needs_grad(numbers):
            self._kept = None
            return self.dense()
        state = state_of(numbers)
        state += [torch.is_autocast_enabled(n.device.type) for n in numbers[:1]]  # it decides the dtype of products
        if self._kept is None or self._kept[0] != state:
            self._kept = state, self.dense()
        return self._kept[1]

    def train(self, mode: bool = True) -> "Structure":
        self._kept = None
        return super().train(mode)

    def shared(self) -> nn.Module | None:
        """What holds the numbers that other layers of its model use too, as a submodule of each; most have none."""
        return None

    def share(self, numbers: nn.Module) -> None:
        """Use these numbers, the `shared()` ones of another layer, in place of its own."""
        raise UserError(f"structure {self.name} shares no numbers with other layers")

    def spec(self) -> dict[str, Any]:
        """The plain JSON values from which `build` makes the same structure, without tensors."""
        return {"shape": list(self.shape)}

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """(..., in) -> (..., out), for a matrix."""
        return functional.linear(x, self.cached(), bias)

    def conv1d(self, x: Tensor, stride: int = 1, padding: int = 0, dilation: int = 1,
               bias: Tensor | None = None) -> Tensor:
        """(N, in, T) -> (N, out, T'), for a kernel."""
        return conv1d(x, self.cached(), bias, stride, padding, dilation)

    def num_parameters(self) -> int:
        """How many trainable numbers it stores; of those that layers share its part, so that layers add up."""
        return sum(parameter.numel() for parameter in self.parameters())

    def macs(self, frames: int, stride: int = 1) -> int:
        """Multiply-adds for `frames` rows, or frames of output of a convolution with this stride."""
        return frames * math.prod(self.shape)

    def scale_rows(self, scale: Tensor) -> bool:
        """Multiply the rows of the weight by `scale` (out,) in place; False, nothing done, where a family cannot."""
        return False


class Scaled(Structure):
    """A structure whose rows are multiplied by stored numbers: what folding leaves where rows cannot be scaled."""

    def __init__(self, inner: Structure, scale: Tensor) -> None:
        super().__init__(inner.shape)
        self.inner, self.name = inner, inner.name
        self.scale = nn.Parameter(scale)

    def dense(self) -> Tensor:
        return self.inner.dense() * self.scale.view(-1, *[1] * (len(self.shape) - 1))

    def spec(self) -> dict[str, Any]:
        return {**self.inner.spec(), "row_scale": True}

    def shared(self) -> nn.Module | None:
        return self.inner.shared()

    def share(self, numbers: nn.Module) -> None:
        self.inner.share(numbers)

    def num_parameters(self) -> int:
        return self.inner.num_parameters() + self.scale.numel()

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        y = self.inner(x) * self.scale
        return y if bias is None else y + bias

    def conv1d(self, x: Tensor, stride: int = 1, padding: int = 0, dilation: int = 1,
               bias: Tensor | None = None) -> Tensor:
        y = self.inner.conv1d(x, stride, padding, dilation) * self.scale[:, None]
        return y if bias is None else y + bias[:, None]

    def macs(self, frames: int, stride: int = 1) -> int:
        return self.inner.macs(frames, stride) + frames * self.shape[0]

    @torch.no_grad()
    def scale_rows(self, scale: Tensor) -> bool:
        self.scale.mul_(scale)
        return True


def needs_grad(numbers: Iterable[Tensor]) -> bool:
    """Whether gradients go to any of them, so that what is made of them has to be made anew in every call."""
    return torch.is_grad_enabled() and any(n.requires_grad for n in numbers)


def state_of(numbers: Sequence[Tensor]) -> list[Any]:
    """What changes when the numbers do, and in inference mode: what is made there can take no part in a gradient."""
    return [torch.is_inference_mode_enabled(),
            *((n.data_ptr(), n.dtype, 0 if n.is_inference() else n._version) for n in numbers)]


def scaled(structure: Structure, scale: Tensor) -> Structure:
    """`structure` with the rows of its weight multiplied by `scale` (out,): itself where it can, wrapped otherwise."""
    return structure if structure.scale_rows(scale) else Scaled(structure, scale)


@contextmanager
def error_context(path: str) -> Iterator[None]:
    """Say in a user's error which layer it is about."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"{path}: {error}") from None


def exact(x: Tensor) -> Tensor:
    """In the precision in which numbers are fitted and transformed: float64 stays, anything else becomes float32."""
    return x if x.dtype == torch.float64 else x.float()


def dense_std(shape: Sequence[int]) -> float:
    """Standard deviation with which torch starts a dense weight: 1 / sqrt(3 x fan-in) (`nn.Linear`, `nn.Conv1d`)."""
    return 1 / math.sqrt(3 * math.prod(shape[1:]))
