"""Which layers of structure tied share a matrix, and how many parameters that takes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Shape = Sequence[int]


def neighbours(shapes: Mapping[str, Shape], span: int) -> list[list[str]]:
    """Paths by group: up to `span` layers of one shape, in the order of their blocks; a layer without partner is alone.

    The paths of a group differ in one number. Where paths hold several, the block's is the one with the most values.
    """
    alike: dict[Any, dict[str, list[int]]] = {}
    for path, shape in shapes.items():
        steps = path.split(".")
        kind = tuple("*" if step.isdigit() else step for step in steps), tuple(shape)
        alike.setdefault(kind, {})[path] = [int(step) for step in steps if step.isdigit()]
    found = []
    for numbers in alike.values():
        values = [len(set(column)) for column in zip(*numbers.values(), strict=True)]
        block = values.index(max(values)) if values else 0
        rows: dict[Any, list[str]] = {}
        for path in sorted(numbers, key=lambda path: numbers[path][block : block + 1]):
            rows.setdefault((*numbers[path][:block], *numbers[path][block + 1 :]), []).append(path)
        found += [row[start : start + span] for row in rows.values() for start in range(0, len(row), span)]
    return found


def sides(shape: Shape) -> tuple[int, int]:
    """(out, in x taps)."""
    return shape[0], math.prod(shape[1:])


def square(shape: Shape) -> bool:
    """Whether it is a matrix that has a diagonal, as is."""
    return len(shape) == 2 and shape[0] == shape[1]


def own(shape: Shape, rank: int, diagonal: bool) -> int:
    """The parameters of a layer beside those that it shares."""
    out, columns = sides(shape)
    return min(rank, out, columns) * (out + columns) + (out if diagonal and square(shape) else 0)


def pays(shape: Shape, members: int, rank: int, diagonal: bool) -> bool:
    """Whether each layer of a group is fewer parameters than dense, its part of what is shared rounded up."""
    return -(-math.prod(shape) // members) + own(shape, rank, diagonal) < math.prod(shape)


def stored(shape: Shape, members: int, rank: int, diagonal: bool) -> int:
    """The parameters of all layers of a group, which stay dense where sharing does not pay."""
    if not pays(shape, members, rank, diagonal):
        return members * math.prod(shape)
    return math.prod(shape) + members * own(shape, rank, diagonal)
