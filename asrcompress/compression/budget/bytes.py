"""A budget of bytes: of each part of a model one choice, so that together they fit some bytes and cost least.

Each choice has its bytes and its damage, and damages add up. On the lower convex hull of its choices a part takes the
one with the least damage + multiplier x bytes; one multiplier for all parts, found by bisection, is optimal for the
bytes that it comes to (Everett, "Generalized Lagrange multiplier method", Operations Research 1963). What is then left
of the bytes, less than a step of a hull, goes to the choices that pay best for it, on a hull or not.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asrcompress.compression.structures import CannotShrink
from asrcompress.errors import UserError

ROUNDS = 100  # of bisection: the multiplier to the last bit of a float


@dataclass(frozen=True)
class Choice:
    """One way to store a part. `how` is the caller's."""

    bytes: int
    damage: float
    how: Any = None


def hull(choices: Sequence[Choice]) -> list[Choice]:
    """The lower convex hull of damage over bytes, from the fewest bytes to the least damage."""
    found: list[Choice] = []
    for one in sorted(choices, key=lambda choice: (choice.bytes, choice.damage)):
        if found and one.damage >= found[-1].damage:
            continue
        while len(found) > 1 and _rate(found[-2], found[-1]) <= _rate(found[-1], one):
            found.pop()
        if found and found[-1].bytes == one.bytes:
            found.pop()
        found.append(one)
    return found


def _rate(small: Choice, large: Choice) -> float:
    """Damage that a further byte takes away."""
    return (small.damage - large.damage) / max(1, large.bytes - small.bytes)


def share_out(parts: Mapping[str, Sequence[Choice]], target: int) -> dict[str, Choice]:
    """One choice for each part, at most `target` bytes together; the same for the same choices in any order.

    Errors: CannotShrink, which says the fewest bytes, where those are more.
    """
    smallest = sum(min(choice.bytes for choice in choices) for choices in parts.values())
    if smallest > target:
        raise CannotShrink(f"{target:,} bytes cannot be reached with these choices; the smallest is {smallest:,}")
    hulls = {path: hull(choices) for path, choices in parts.items()}

    def at(multiplier: float) -> dict[str, Choice]:
        return {path: min(curve, key=lambda one: (one.damage + multiplier * one.bytes, one.bytes))
                for path, curve in hulls.items()}

    low, high = 0.0, 1.0
    while total(at(high)) > target:
        high *= 2
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        low, high = (low, middle) if total(at(middle)) <= target else (middle, high)
    return _filled(parts, at(high), target)


def total(chosen: Mapping[str, Choice]) -> int:
    """Bytes of all choices."""
    return sum(choice.bytes for choice in chosen.values())


def _filled(parts: Mapping[str, Sequence[Choice]], chosen: dict[str, Choice], target: int) -> dict[str, Choice]:
    """The choices, one after the other exchanged for that which saves most damage for a byte and still fits."""
    while True:
        left = target - total(chosen)
        better = [(_rate(chosen[path], one), -one.bytes, path, one) for path, choices in sorted(parts.items())
                  for one in choices if one.damage < chosen[path].damage and one.bytes - chosen[path].bytes <= left]
        if not better:
            return chosen
        _, _, path, one = max(better, key=lambda offer: offer[:3])
        chosen = {**chosen, path: one}


def bytes_of(text: str, dense: int) -> int:
    """Bytes of 1200000, 900kB, 1.2MB or 1/20 (of `dense` bytes). Errors: UserError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(B|kB|KB|MB)?|1/(\d+(?:\.\d+)?)", text.strip())
    if not found or not float(found[1] or found[3]):
        raise UserError(f"the target is '{text}'; it is bytes, as 1200000, 900kB or 1.2MB, or a part of the dense "
                        "model's, as 1/20")
    if found[3]:
        return int(dense / float(found[3]))
    return int(float(found[1]) * {None: 1, "B": 1, "kB": 1000, "KB": 1000, "MB": 1_000_000}[found[2]])
