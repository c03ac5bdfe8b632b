"""A method's options: one frozen dataclass beside the method, checked here wherever they come from.

Python keywords, Hydra overrides and the specification in a model file all become the same dataclass through `make`;
an unknown key or a value of a wrong type is one sentence at every level. A field's type is one of int, float, bool,
str, Literal[...], another such dataclass, a tuple, Sequence or Mapping from str of one of these, or some of these with
None; ranges are checked by `__post_init__`.
"""

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, get_args, get_origin

from asrcompress.errors import UserError

T = TypeVar("T")


def make(kind: type[T], given: Mapping[str, Any], what: str) -> T:
    """`kind(**given)`, lists as tuples and whole numbers as floats where the field says so.

    `what` begins the sentence of an error ("structure svd"). Errors: UserError for an unknown key, with the nearest
    known one, for one that is missing, and for a value of a wrong type.
    """
    hints = typing.get_type_hints(kind)
    known = {field.name: hints[field.name] for field in fields(kind)}  # type: ignore[arg-type]
    checked = _checked(given, known, what)
    for field in fields(kind):  # type: ignore[arg-type]
        require(field.name in given or field.default is not MISSING or field.default_factory is not MISSING,
                f"{what} lacks the option '{field.name}'")
    return kind(**checked)


def build(kind: type[T], given: Mapping[str, Any], what: str) -> T:
    """`kind(**given)` of any class, checked by the annotations of its `__init__`: for what a model file describes.

    Errors: those of `make`, and UserError where an argument is missing or the class refuses a value.
    """
    hints = typing.get_type_hints(kind.__init__)
    checked = _checked(given, {key: hint for key, hint in hints.items() if key != "return"}, what)
    try:
        return kind(**checked)
    except (TypeError, ValueError) as error:
        raise UserError(f"{what} cannot be built from {dict(given)}: {error}") from None


def _checked(given: Mapping[str, Any], hints: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The given values, each as the type of its hint. Errors: UserError for an unknown key or a wrong type."""
    for key in given:
        if key not in hints:
            near = get_close_matches(str(key), hints, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(hints) or 'none'}"
            raise UserError(f"{what} has no option '{key}'; {hint}")
    return {key: _converted(value, hints[key], f"{what}: {key}") for key, value in given.items()}


def require(good: bool, sentence: str) -> None:
    """Raise UserError(sentence) unless `good`: for the ranges in a `__post_init__`."""
    if not good:
        raise UserError(sentence)


def _converted(value: Any, hint: Any, where: str) -> Any:
    """`value` as the type of the field. Errors: UserError(where: ...)."""
    for kind in _alternatives(hint):
        origin = get_origin(kind)
        if kind is type(None) and value is None:
            return None
        if origin is Literal and value in get_args(kind):
            return value
        if origin in (tuple, Sequence) and isinstance(value, list | tuple):
            inner = get_args(kind)[0]
            return tuple(_converted(one, inner, f"{where}[{i}]" if is_dataclass(inner) else where)
                         for i, one in enumerate(value))
        if origin is Mapping and isinstance(value, Mapping):
            return {str(key): _converted(one, get_args(kind)[1], f"{where}[{key}]") for key, one in value.items()}
        if is_dataclass(kind) and isinstance(kind, type):
            if isinstance(value, Mapping):
                return make(kind, value, where)
            if isinstance(value, kind):
                return value
        if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if kind in (int, bool, str) and type(value) is kind:
            return value
    raise UserError(f"{where} is {value!r}; it is {' or '.join(_said(kind) for kind in _alternatives(hint))}")


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The types that a union allows; any other type alone."""
    return get_args(hint) if get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _said(kind: Any) -> str:
    """A type in words."""
    if get_origin(kind) is Literal:
        return ", ".join(map(str, get_args(kind)))
    if get_origin(kind) in (tuple, Sequence):
        return f"a list, each {_said(get_args(kind)[0])}"
    if get_origin(kind) is Mapping:
        return f"a mapping of names to {_said(get_args(kind)[1])}"
    if is_dataclass(kind):
        return f"a mapping of {', '.join(field.name for field in fields(kind))}"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}[kind]
