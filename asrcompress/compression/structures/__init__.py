"""Structures: which few parameters produce a weight. Every module here, or in a family's folder, is one; helpers aside.

    layer = fit("svd", weight, size=0.25)              # from a trained weight: (out, in) or (out, in, taps)
    layer = init("svd", (512, 1536), size=0.05)        # from scratch
    layer = build("svd", spec)                         # from `layer.spec()`, its parameters still to be loaded

`size` is the stored parameters as a fraction of the dense weight's. A new structure is one new file that holds a
subclass of `Structure` whose `name` is the file's name, with its `Options`, one `conf/structure/<name>.yaml`, and one
test.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from asrcompress import options as checks
from asrcompress import registry
from asrcompress.compression.structures.base import (
    Allotment,
    Candidate,
    CannotShrink,
    RateDistortion,
    Structure,
    dense_std,
    error_context,
)
from asrcompress.compression.structures.fitting import output_energy, relative_error
from asrcompress.compression.structures.pool import PooledStructure, pooled
from asrcompress.compression.structures.scaled import Scaled, scaled
from asrcompress.errors import UserError

__all__ = ["Allotment", "Candidate", "CannotShrink", "PooledStructure", "RateDistortion", "Scaled", "Structure",
           "build", "check_finite", "check_shape", "check_trained", "checked_size", "dense_std", "error_context",
           "family", "fit", "fit_all", "init", "init_all", "make_options", "methods", "moments_for", "names",
           "output_energy", "pooled", "relative_error", "scaled"]


def names() -> tuple[str, ...]:
    """Every structure there is, sorted."""
    return registry.names(__name__)


def methods() -> dict[str, type]:
    """Every structure with its options dataclass."""
    return {name: family(name).Options for name in names()}


def family(name: str) -> type[Structure]:
    """The class of a structure. Errors: UserError for an unknown name."""
    return registry.member(__name__, name, Structure, "is no structure")


def make_options(name: str, given: Mapping[str, Any]) -> Any:
    """The options dataclass of a structure. Errors: UserError for an unknown name or key, or a wrong value."""
    return checks.make(family(name).Options, given, f"structure {name}")


def fit(name: str, weight: Tensor, size: float | None = None, seed: int = 0, moments: Tensor | None = None,
        **options: Any) -> Structure:
    """The member of a family nearest to a trained weight, (out, in) or (out, in, taps), in its dtype and on its device.

    `moments` (in x taps)^2 of the inputs are for options with `data_aware` (see `compression.calibration`).
    Errors: UserError for an unknown name, option or shape, or a weight that is not finite; `CannotShrink`, which says
    the smallest size, where `size` cannot be reached.
    """
    made = make_options(name, options)
    _check(weight.shape, size)
    check_finite(weight)
    return family(name).fit(weight.detach(), made, size, seed, **moments_for(made, moments))


def fit_all(name: str, weights: Mapping[str, Tensor], allotments: Mapping[str, Allotment], seed: int = 0,
            moments: Mapping[str, Tensor] | None = None) -> dict[str, Structure]:
    """The members of a family for the layers of one model, by path, each with its allotment.

    Families with a pool let all of them share it; what they leave out had better stay dense. Of the others layer n has
    seed + n, as layers whose parameters collide alike would lose alike. Errors: those of `fit`, and where.

    Weights are (out, in) or (out, in, taps).
    """
    cls, made, seen = family(name), dict[str, Structure](), moments or {}
    for path, weight in weights.items():
        with error_context(path):
            _check(weight.shape, allotments[path].size)
            check_finite(weight)
    if issubclass(cls, PooledStructure):
        return cls.fit_all({path: weight.detach() for path, weight in weights.items()}, allotments, seed)
    for index, (path, weight) in enumerate(weights.items()):
        size, options = allotments[path]
        with error_context(path):
            made[path] = cls.fit(weight.detach(), options, size, seed + index, **moments_for(options, seen.get(path)))
    return made


def init(name: str, shape: Sequence[int], size: float | None = None, seed: int = 0, **options: Any) -> Structure:
    """A random member of a family; the same seed gives the same parameters. Errors: those of `fit`."""
    made = make_options(name, options)
    _check(shape, size)
    return family(name).init(shape, made, size, seed)


def init_all(name: str, shapes: Mapping[str, Sequence[int]], allotments: Mapping[str, Allotment],
             seed: int = 0) -> dict[str, Structure]:
    """`fit_all` from scratch."""
    cls, made = family(name), dict[str, Structure]()
    for path, shape in shapes.items():
        with error_context(path):
            _check(shape, allotments[path].size)
    if issubclass(cls, PooledStructure):
        return cls.init_all(shapes, allotments, seed)
    for index, (path, shape) in enumerate(shapes.items()):
        size, options = allotments[path]
        with error_context(path):
            made[path] = cls.init(shape, options, size, seed + index)
    return made


def build(name: str, spec: Mapping[str, Any]) -> Structure:
    """The structure of a `spec()`, its parameters still to be loaded.

    Errors: UserError for an unknown or missing key, a value of a wrong type, or one that does not suit the shape.
    """
    given = dict(spec)
    row_scale = given.pop("row_scale", False)
    what = f"structure {name}"
    cls = family(name)
    if not isinstance(given.get("shape"), list | tuple):
        raise UserError(f"{what} cannot be built from {dict(spec)}: it has no 'shape'")
    if cls.from_tables and "hash" not in given:
        raise UserError(f"{what} cannot be built from {dict(spec)}: it does not say what made its tables, 'hash'")
    check_shape(given["shape"])
    layer = checks.build(cls, given, what)
    return Scaled(layer, torch.ones(layer.shape[0])) if row_scale else layer


def moments_for(options: Any, moments: Tensor | None) -> dict[str, Tensor | None]:
    """The further argument of `fit`, `rate_distortion` and `error_bounds` where the options are data-aware.

    Moments are (in x taps, in x taps).
    """
    return {"moments": moments} if getattr(options, "data_aware", False) else {}


def check_shape(shape: Sequence[int]) -> None:
    """UserError unless the shape is (out, in) or (out, in, taps)."""
    if len(shape) not in (2, 3) or not all(isinstance(n, int) and n > 0 for n in shape):
        raise UserError(f"a structure's shape is (out, in) or (out, in, taps), not {tuple(shape)}")


def check_finite(weight: Tensor) -> None:
    """UserError where a value of the weight is infinite or not a number."""
    if not torch.isfinite(weight).all():
        raise UserError("a weight holds values that are not finite; take an earlier checkpoint of the model")


def check_trained(name: str) -> None:
    """UserError where a structure is not for models that are trained already."""
    if reason := family(name).not_after:
        raise UserError(f"structure {name} {reason}")


def checked_size(size: float | None) -> float | None:
    """The size, which is above 0, or None. Errors: UserError."""
    if size is not None and not (math.isfinite(size) and size > 0):
        raise UserError(f"size is {size}; it is the fraction of the dense original that may be stored, above 0")
    return size


def _check(shape: Sequence[int], size: float | None) -> None:
    check_shape(shape)
    checked_size(size)
