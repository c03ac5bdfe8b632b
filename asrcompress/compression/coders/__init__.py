"""Coders: how symbols are stored. Every module of this folder without a leading underscore is one.

    data = encode("huffman", symbols)              # any array of integers -> bytes that describe themselves
    symbols = decode("huffman", data, shape)       # the same integers, on every machine

A coder is a dataclass `Options` and two functions, `encode(symbols, options)` and `decode(data, shape)`. `decode` meets
damaged data: it raises ValueError, and allocates no more than a small multiple of what `shape` asks for, which the
caller has bounded.
"""

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asrcompress import options as options_module
from asrcompress import registry

Symbols = NDArray[np.int64]


def names() -> tuple[str, ...]:
    """Every coder there is, sorted."""
    return registry.names(__name__)


def coder(name: str) -> ModuleType:
    """The module of a coder. Errors: UserError for an unknown name."""
    return registry.module(__name__, name, "is no coder")


def methods() -> dict[str, type]:
    """The options dataclass of every coder by name."""
    return {name: coder(name).Options for name in names()}


def encode(name: str, symbols: Symbols, **options: Any) -> bytes:
    """Integers of any shape (64 bits) as bytes. Errors: UserError for an unknown coder or option."""
    module = coder(name)
    chosen = options_module.make(module.Options, options, f"coder {name}")
    return module.encode(np.ascontiguousarray(symbols, dtype=np.int64), chosen)


def decode(name: str, data: bytes, shape: Sequence[int]) -> Symbols:
    """The array again. Errors: ValueError for data that no `encode` wrote for this shape."""
    symbols = coder(name).decode(data, tuple(shape))
    if symbols.size != math.prod(shape):
        raise ValueError(f"{symbols.size} symbols where the shape {tuple(shape)} says {math.prod(shape)}")
    return symbols.reshape(shape)
