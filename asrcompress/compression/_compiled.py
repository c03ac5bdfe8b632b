"""compiled: loops that numba compiles when they are first called, and keeps on disk where it finds a place to write."""

from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """The function in machine code, without fast math, so that its floats are the same everywhere.

    Where neither the package's folder nor the user's cache can be written, it is compiled anew in each process.
    """
    try:
        return numba.njit(cache=True, nogil=True)(function)  # type: ignore[return-value]
    except RuntimeError:  # numba has no place for its cache
        return numba.njit(nogil=True)(function)  # type: ignore[return-value]
