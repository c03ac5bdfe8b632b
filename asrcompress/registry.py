"""Members of a package by name: every module of it without a leading underscore is one, so a new file is a new member.

A package that is a registry offers `names(__path__)` and looks one up with `module` or `member`.
"""

import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType
from typing import TypeVar

from asrcompress.errors import UserError

T = TypeVar("T")


def names(path: Iterable[str]) -> tuple[str, ...]:
    """The members of the package with this `__path__`, sorted; none is imported."""
    return tuple(sorted(found.name for found in pkgutil.iter_modules(path) if not found.name.startswith("_")))


def module(package: str, name: str, what: str, beside: tuple[str, ...] = ()) -> ModuleType:
    """The module of a member. Errors: UserError, "there `what` 'name'", with what there is, and is `beside` modules."""
    known = names(importlib.import_module(package).__path__)
    if name not in known:
        raise UserError(f"there {what} '{name}'; there are {', '.join((*beside, *known))}")
    return importlib.import_module(f"{package}.{name}")


def member(package: str, name: str, base: type[T], what: str, beside: tuple[str, ...] = ()) -> type[T]:
    """The subclass of `base` in the module of a member whose `name` is the module's. Errors: those of `module`."""
    found = vars(module(package, name, what, beside)).values()
    return next(c for c in found if isinstance(c, type) and issubclass(c, base) and getattr(c, "name", "") == name)
