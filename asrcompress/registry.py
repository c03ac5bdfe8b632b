"""Members of a package by name: every module of it, or of its sub-packages, is one, so a new file is a new member.

Helpers are not: modules with a leading underscore, those of `HELPERS`, and what a package names in `without`. A package
that is a registry offers `names(__name__)` and looks one up with `module` or `member`.
"""

import importlib
import importlib.util
import pkgutil
from types import ModuleType
from typing import TypeVar

from asrcompress.errors import UserError

HELPERS = ("base", "file", "fitting", "pool", "scaled", "tables")
T = TypeVar("T")


def members(package: str, without: tuple[str, ...] = ()) -> dict[str, str]:
    """Name -> dotted module of every member, sorted by name; no member is imported."""
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations is not None
    found: dict[str, str] = {}
    for module in pkgutil.iter_modules(spec.submodule_search_locations):
        path = f"{package}.{module.name}"
        if module.name in without:
            continue
        if module.ispkg:
            found |= members(path)
        elif not module.name.startswith("_") and module.name not in HELPERS:
            found[module.name] = path
    return dict(sorted(found.items()))


def names(package: str, without: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The members of a package, sorted; none is imported."""
    return tuple(members(package, without))


def module(package: str, name: str, what: str, beside: tuple[str, ...] = (),
           without: tuple[str, ...] = ()) -> ModuleType:
    """The module of a member. Errors: UserError, "there `what` 'name'", with what there is, and is `beside` modules."""
    known = members(package, without)
    if name not in known:
        raise UserError(f"there {what} '{name}'; there are {', '.join((*beside, *known))}")
    return importlib.import_module(known[name])


def member(package: str, name: str, base: type[T], what: str, beside: tuple[str, ...] = ()) -> type[T]:
    """The subclass of `base` in the module of a member whose `name` is the module's. Errors: those of `module`."""
    found = vars(module(package, name, what, beside)).values()
    return next(c for c in found if isinstance(c, type) and issubclass(c, base) and getattr(c, "name", "") == name)
