"""The discrete cosine transform (DCT-II; Ahmed, Natarajan and Rao, 1974) with a matrix of integers.

Points are integers too, so that their sums are integers below 2^53: exact in double precision in any order, on every
machine. Weights that lie side by side along frequencies or in time are alike, and coefficients are fewer bits.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
ONE = 2**10
LONGEST, AXES = 512, 2  # so that a sum stays below 2^53
ROWS = 128  # by which axes are chosen
GAIN = 0.02  # bits a weight for which the transform is worth its time


@functools.cache
def matrix(size: int) -> NDArray[np.float64]:
    """(frequency, place), integers: ONE times the orthonormal matrix, rounded."""
    places, frequencies = np.arange(size), np.arange(size)[:, None]
    whole = math.sqrt(2 / size) * np.cos(np.pi * (2 * places + 1) * frequencies / (2 * size))
    whole[0] = math.sqrt(1 / size)
    return np.rint(ONE * whole)


def allowed(shape: Sequence[int], axes: object) -> bool:
    """Whether a transform of this shape can have these axes: a list of at most AXES, ascending, without the first."""
    return (isinstance(axes, list) and all(type(axis) is int and 0 < axis < len(shape) for axis in axes)
            and axes == sorted(set(axes)) and len(axes) <= AXES and all(2 <= shape[axis] <= LONGEST for axis in axes))


def inverse(coefficients: NDArray[np.integer], axes: Sequence[int]) -> Floats:
    """What integer coefficients stand for."""
    made: Floats = coefficients.astype(np.float64)
    for axis in axes:
        made = _along(made, axis, matrix(made.shape[axis]))
    return made * float(ONE) ** -len(axes)


def forward(values: Floats, axes: Sequence[int]) -> NDArray[np.float32]:
    """The coefficients of which `inverse` makes the values."""
    for axis in axes:
        values = _along(values, axis, np.linalg.inv(matrix(values.shape[axis]) / ONE))
    return np.ascontiguousarray(values, np.float32)


def _along(values: Floats, axis: int, by: Floats) -> Floats:
    """(..., n, ...) times (n, n), along an axis."""
    if axis == values.ndim - 1:
        return (values.reshape(-1, len(by)) @ by).reshape(values.shape)
    parts = values.reshape(math.prod(values.shape[:axis]), len(by), -1)
    return np.matmul(by.T, parts).reshape(values.shape)


def chosen(values: Floats) -> list[int]:
    """The axes along which a transform saves bits, by the sizes of rows and columns before and after."""
    some, axes = values[:: max(1, -(-len(values) // ROWS))] if values.ndim > 1 else values, list[int]()
    for axis in range(values.ndim - 1, 0, -1):
        if len(axes) < AXES and 2 <= values.shape[axis] <= LONGEST:
            there = forward(some, [axis])
            if _bits(there) < _bits(some) - GAIN:
                some, axes = there, sorted([*axes, axis])
    return axes


def _bits(values: Floats) -> float:
    """Bits of a value at many bits, but for a constant, when each row and each column has a size of its own."""
    squares = np.square(values.reshape(len(values), -1), dtype=np.float64) + 1e-30
    rows = squares.mean(1, keepdims=True)
    return float(0.5 * (np.log2(rows).mean() + np.log2((squares / rows).mean(0)).mean()))
