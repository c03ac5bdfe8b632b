"""Structures: which few numbers produce a weight. Every module of this folder without a leading underscore is one.

    layer = fit("svd", weight, size=0.25)              # from a trained weight: (out, in) or (out, in, taps)
    layer = init("svd", (512, 1536), size=0.05)        # from scratch
    layer = build("svd", spec)                         # from `layer.spec()`, numbers still to be loaded

`size` is the stored numbers as a fraction of the dense weight's. A new structure is one new file that holds a subclass
of `Structure` whose `name` is the file's name, one `conf/structure/<name>.yaml`, and one test.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from asrcompress import registry
from asrcompress.compression.structures.base import (
    Candidate,
    CannotShrink,
    RateDistortion,
    Scaled,
    Structure,
    dense_std,
    error_context,
    scaled,
)
from asrcompress.compression.structures.low_rank._data_aware import output_energy
from asrcompress.errors import UserError

__all__ = ["CannotShrink", "Candidate", "RateDistortion", "Scaled", "Structure", "error_context", "build", "dense_std", "family", "fit",
           "fit_all", "init", "init_all", "names", "output_energy", "scaled"]


def names() -> tuple[str, ...]:
    """Every structure there is, sorted."""
    return registry.names(__name__)


def family(name: str) -> type[Structure]:
    """The class of a structure."""
    return registry.member(__name__, name, Structure, "is no structure")


def fit(name: str, weight: Tensor, size: float | None = None, seed: int = 0, **options: Any) -> Structure:
    """The member of a family nearest to a trained weight, (out, in) or (out, in, taps), in its dtype and on its device.

    Errors: UserError for an unknown name, option or shape, or a weight that is not finite; `CannotShrink`, which says
    the smallest size, where `size` cannot be reached.
    """
    check_shape(weight.shape)
    check_finite(weight)
    cls = family(name)
    return cls.fit(weight.detach(), checked_size(size), seed, **known(cls.fit, f"structure {name}", options))


def fit_all(name: str, weights: Mapping[str, Tensor], shares: Mapping[str, Mapping[str, Any]],
            seed: int = 0) -> dict[str, Structure]:
    """The members of a family for the layers of one model, by path; `shares` are the size and options of each.

    A family may let them share numbers; what it leaves out had better stay dense. Errors: those of `fit`, and where.
    """
    cls = family(name)
    for path, weight in weights.items():
        with error_context(path):
            check_finite(weight)
            _check_share(name, cls.fit, weight.shape, **shares[path])
    return cls.fit_all({path: weight.detach() for path, weight in weights.items()}, shares, seed)


def init(name: str, shape: Sequence[int], size: float | None = None, seed: int = 0, **options: Any) -> Structure:
    """A random member of a family; the same seed gives the same numbers."""
    check_shape(shape)
    cls = family(name)
    return cls.init(shape, checked_size(size), seed, **known(cls.init, f"structure {name}", options))


def init_all(name: str, shapes: Mapping[str, Sequence[int]], shares: Mapping[str, Mapping[str, Any]],
             seed: int = 0) -> dict[str, Structure]:
    """`fit_all` from scratch."""
    cls = family(name)
    for path, shape in shapes.items():
        with error_context(path):
            _check_share(name, cls.init, shape, **shares[path])
    return cls.init_all(shapes, shares, seed)


def build(name: str, spec: Mapping[str, Any]) -> Structure:
    """The structure of a `spec()`, its numbers still to be loaded."""
    spec = dict(spec)
    row_scale = spec.pop("row_scale", False)
    try:
        check_shape(spec["shape"])
        layer = family(name).build(spec)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"structure {name} cannot be built from {spec}: {error}") from None
    return Scaled(layer, torch.ones(layer.shape[0])) if row_scale else layer


def check_shape(shape: Sequence[int]) -> None:
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise UserError(f"a structure's shape is (out, in) or (out, in, taps), not {tuple(shape)}")


def _check_share(name: str, function: Callable[..., Any], shape: Sequence[int], size: float | None = None,
                 **options: Any) -> None:
    check_shape(shape)
    checked_size(size)
    known(function, f"structure {name}", options)


def check_finite(weight: Tensor) -> None:
    if not torch.isfinite(weight).all():
        raise UserError("a weight holds values that are not finite; take an earlier checkpoint of the model")


def checked_size(size: float | None) -> float | None:
    if size is not None and not (math.isfinite(size) and size > 0):
        raise UserError(f"size is {size}; it is the fraction of the dense original that may be stored, above 0")
    return size


def known(function: Callable[..., Any], what: str, options: dict[str, Any]) -> dict[str, Any]:
    """`options`, or a UserError that names the first one that is no keyword of `function`."""
    offered = [key for key, p in inspect.signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY]
    for key in options:
        if key not in offered:
            raise UserError(f"{what} has no option '{key}'; it has {', '.join(offered) or 'none'}")
    return options
