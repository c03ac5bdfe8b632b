"""activations: the inputs of layers as 8-bit integers too, which is what a device that multiplies integers sees.

    grids = activations.observe(small, batches)      # batches of the arguments of small(...): speech, or synthetic
    small = activations.apply(small, grids)          # from now on every layer rounds what it is given

One scale and one zero point per tensor: q = clip(round(x / scale) + zero, 0, 255), x' = (q - zero) scale. 0 stays 0, as
padding needs it. What is rounded is the input of a layer, whichever structure makes its weight and however that is
quantized; what passes between the factors of a structure stays as it is. In training, gradients pass straight through,
but not where x was clipped. Jacob et al., "Quantization and training of neural networks ...", CVPR 2018.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from asrcompress.compression import calibration
from asrcompress.compression.modules import StructuredConv1d, StructuredLinear
from asrcompress.compression.parametrization import copy_model
from asrcompress.errors import UserError

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, StructuredLinear, StructuredConv1d)
TOP = 255
SHRINK = tuple(1 - 0.02 * step for step in range(41))  # of the range, tried for the least squared error
SAMPLES = 2**14  # values of each input that are kept for that


class Grid(NamedTuple):
    """The values (q - zero) scale, q in 0 to 255."""

    scale: float
    zero: int

    @classmethod
    def of_range(cls, low: float, high: float) -> "Grid":
        """The grid of the range, widened so that it has 0; both rounded as the file and a device hold them."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = float(torch.tensor(max((high - low) / TOP, 1e-12), dtype=torch.float32))
        return cls(scale, min(TOP, max(0, round(-low / scale))))

    def round(self, x: Tensor) -> Tensor:
        """The nearest values of the grid, in the shape of x; gradients pass where x was not clipped."""
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, 0, TOP)

    @property
    def low(self) -> float:
        """The smallest value."""
        return -self.zero * self.scale

    @property
    def high(self) -> float:
        """The largest value."""
        return (TOP - self.zero) * self.scale


class Seen:
    """The extremes of a layer's inputs, and some of them, drawn at random."""

    def __init__(self) -> None:
        self.low = self.high = 0.0
        self.samples: list[Tensor] = []
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        x = (args[0] if args else options["input"]).detach().float()
        low, high = torch.aminmax(x)
        self.low, self.high = min(self.low, float(low)), max(self.high, float(high))
        drawn = torch.randint(x.numel(), (min(SAMPLES, x.numel()),), generator=self.generator)
        self.samples.append(x.reshape(-1)[drawn.to(x.device)].cpu())

    def grid(self, path: str, how: str) -> Grid:
        """The grid of what was seen. Errors: UserError that names the layer at `path` where it is not finite."""
        if not math.isfinite(self.high - self.low) or any(not torch.isfinite(one).all() for one in self.samples):
            raise UserError(f"{path}: it sees values that are not finite; check the model and the calibration data")
        whole = Grid.of_range(self.low, self.high)
        if how == "minmax":
            return whole
        x = torch.cat(self.samples)
        grids = [Grid.of_range(self.low * shrink, self.high * shrink) for shrink in SHRINK]
        return min(grids, key=lambda grid: float((grid.round(x) - x).square().mean()))


class _Rounding:
    """The hook of a layer whose input is rounded; a copy of the model takes it along."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, Any]:
        if args:
            return (self.grid.round(args[0]), *args[1:]), options
        return args, {**options, "input": self.grid.round(options["input"])}


@torch.no_grad()
def observe(model: nn.Module, batches: Iterable[tuple[Any, ...]], how: str = "mse") -> dict[str, Grid]:
    """The grid of every Linear and convolution by its path, from the inputs that it gets in eval mode.

    how: "mse", of the whole range and smaller ones that with the least squared error (on a sample), or "minmax", the
    whole range. A layer that is never called is not in the answer. The inputs are those of the model as it is: of a
    compressed one, what it will see on the device. Errors: UserError for another `how`, and for
    inputs that are not finite.
    """
    if how not in ("mse", "minmax"):
        raise UserError(f"activations: the range is chosen by mse or minmax, not by '{how}'")
    seen = {path: Seen() for path, module in model.named_modules() if isinstance(module, LAYERS)}
    calibration.watch(model, seen, batches)
    return {path: one.grid(path, how) for path, one in seen.items() if one.samples}


def apply(model: nn.Module, grids: Mapping[str, Grid]) -> nn.Module:
    """A copy of the model whose layers round their inputs. Errors: UserError without grids, or for an unknown layer."""
    small = remove(copy_model(model))
    if not grids:
        raise UserError("activations: no layer was seen at work; calibrate on data that the model can be run on")
    _attach(small, grids)
    return small


def remove(model: nn.Module) -> nn.Module:
    """Let no layer round its inputs any more; in place."""
    for module in model.modules():
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, _Rounding):
                del module._forward_pre_hooks[key], module._forward_pre_hooks_with_kwargs[key]
    return model


def grids(model: nn.Module) -> dict[str, Grid]:
    """The grid of every layer that rounds its inputs, by path."""
    return {path: hook.grid for path, module in model.named_modules() for hook in module._forward_pre_hooks.values()
            if isinstance(hook, _Rounding)}


def entries(model: nn.Module) -> dict[str, dict[str, Any]]:
    """`grids` as plain JSON: {path: {"quantization": "int8", "scale", "zero"}}."""
    return {path: {"quantization": "int8", **grid._asdict()} for path, grid in grids(model).items()}


def apply_config(model: nn.Module, entries: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    """Let the layers that `entries` names round their inputs, in place. Errors: UserError for an impossible entry."""
    made = {}
    for path, entry in entries.items():
        kind, scale, zero = (entry.get(key) for key in ("quantization", "scale", "zero"))
        known = kind == "int8" and isinstance(scale, float) and type(zero) is int
        if not known or not 1e-30 < scale < 1e30 or not 0 <= zero <= TOP:  # type: ignore[operator]
            raise UserError(f"the activations of '{path}' are {kind!r} with scale {scale!r} and zero {zero!r}; int8 "
                            f"has a scale above 0 and a zero of 0 to {TOP}")
        made[path] = Grid(scale, zero)  # type: ignore[arg-type]
    _attach(model, made)
    return model


def _attach(model: nn.Module, grids: Mapping[str, Grid]) -> None:
    for path, grid in grids.items():
        try:
            layer = model.get_submodule(path)
        except AttributeError:
            raise UserError(f"the model has no layer '{path}', whose activations are to be int8") from None
        layer.register_forward_pre_hook(_Rounding(grid), with_kwargs=True)
