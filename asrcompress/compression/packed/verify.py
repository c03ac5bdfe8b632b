"""verify: whether a model that was loaded is the one that was written."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from asrcompress.compression import activations, modules, quantization, state
from asrcompress.compression.parametrization import copy_model
from asrcompress.errors import UserError

TOLERANCE = 1e-3  # of outputs, relative to the largest if that is above 1: what another order of float32 sums may cost


def same(written: nn.Module, loaded: nn.Module, path: str, example: tuple[Any, ...] | None = None) -> None:
    """Compare tensors bit for bit, the modules with what they say of themselves, and outputs where there is an example.

    Errors: UserError that says what differs, so that the file was not kept.
    """
    plain, loaded_plain = (quantization.materialize(copy_model(one)) for one in (written, loaded))
    ours, theirs = state.stored(plain), state.stored(loaded_plain)
    differ = [name for name in {**ours, **theirs} if name not in ours or name not in theirs
              or ours[name].dtype != theirs[name].dtype or not torch.equal(ours[name].cpu(), theirs[name].cpu())]
    if differ:
        raise _not_kept(path, f"the tensor '{differ[0]}' comes out different once the file is loaded again")
    made, again = modules.constants(plain), modules.constants(loaded_plain)
    for name in (name for name in made if name in again):  # in order: the sentence names the first
        if _other_constant(made[name].cpu(), again[name].cpu()):
            raise _not_kept(path, f"the buffer '{name}', which the model's state leaves out, is another one in a model "
                            "that is built again; build it alike, or register it as persistent")
    ours_said, theirs_said = _said(plain), _said(loaded_plain)
    for name in {**ours_said, **theirs_said}:
        if ours_said.get(name) != theirs_said.get(name):
            new, old = theirs_said.get(name, "nothing"), ours_said.get(name, "nothing")
            raise _not_kept(path, f"the model that is built again has {new} at '{name}', where this one has {old}")
    if example is None:
        return
    example = _on_cpu(example)  # where files are loaded
    if (off := difference(outputs(plain.cpu(), example), outputs(loaded, example))) > TOLERANCE:
        raise _not_kept(path, f"the outputs differ by {off:g} once the file is loaded again")


def _other_constant(ours: Tensor, theirs: Tensor) -> bool:
    """Whether it is not what another processor makes of the same constant. One that grew in a forward pass does so
    again."""
    return ours.dtype != theirs.dtype or (ours.shape == theirs.shape and not torch.allclose(
        ours, theirs, rtol=0.01, atol=TOLERANCE, equal_nan=ours.is_floating_point()))


def _on_cpu(example: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(one.cpu() if isinstance(one, Tensor) else one for one in example)


def folded(model: nn.Module, written: nn.Module, path: str, example: tuple[Any, ...] | None) -> None:
    """Compare outputs before and after folding, without rounded inputs, which turn over where folding rounds otherwise.

    Errors: UserError, as in `same`.
    """
    if example is None or not (hasattr(model, "batchnorm_pairs") or hasattr(model, "layernorm_pairs")):
        return
    from asrcompress.compression.folding import fold

    plain, example = activations.remove(copy_model(model)).eval().cpu(), _on_cpu(example)
    if (off := difference(outputs(plain, example), outputs(fold(plain), example), jumps(plain))) > TOLERANCE:
        raise _not_kept(path, f"the outputs differ by {off:g} once its norms are folded")


def _not_kept(path: str, what: str) -> UserError:
    return UserError(f"{path}: {what}, so the file was not kept")


def _said(model: nn.Module) -> dict[str, str]:
    """What every module says of itself: its class and what `print(model)` shows, such as sizes and strides."""
    return {path or "the model itself": f"{type(module).__name__}({module.extra_repr()})"
            for path, module in model.named_modules()}


@torch.no_grad()
def outputs(model: nn.Module, args: Sequence[Any], keywords: Mapping[str, Any] | None = None) -> list[Tensor]:
    """The floating-point tensors that the model, as it is, gives for these arguments."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [one.detach() for one in _tensors(model(*args, **(keywords or {}))) if one.is_floating_point()]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)


def jumps(model: nn.Module) -> bool:
    """Whether a function inside jumps, so that rounding moves single values by much. A module says so: `jumps`."""
    return any(getattr(module, "jumps", False) for module in model.modules())


def difference(ours: list[Tensor], theirs: list[Tensor], mean: bool = False) -> float:
    """The largest (or mean) difference of two models' outputs, relative to the largest value if that is above 1;
    infinite where shapes differ or a difference is no number."""
    if [one.shape for one in ours] != [one.shape for one in theirs]:
        return float("inf")
    largest = 0.0
    for a, b in zip(ours, theirs, strict=True):
        if not a.numel():
            continue
        gaps = torch.where(a == b, 0, (a.double() - b.double()).abs())  # equal infinities have no difference
        gap = gaps.mean() if mean else gaps.max()
        scale = a.double().abs().nan_to_num(0, 0, 0).max().clamp_min(1)
        largest = max(largest, float((gap / scale).nan_to_num(float("inf"))))
    return largest
