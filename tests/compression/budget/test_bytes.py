"""One choice a part: the hull against its definition, the whole against exhaustive search."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrcompress.compression.budget.bytes import Choice, bytes_of, hull, share_out, total
from asrcompress.compression.structures import CannotShrink
from asrcompress.errors import UserError

choice = st.builds(Choice, st.integers(0, 200), st.floats(0, 10))
PARTS = st.dictionaries(st.sampled_from("abcd"), st.lists(choice, min_size=1, max_size=6), min_size=1)


def exhaustive(parts: dict[str, list[Choice]], target: int) -> float:
    """The least damage of all combinations that fit."""
    return min((sum(one.damage for one in every) for every in itertools.product(*parts.values())
                if sum(one.bytes for one in every) <= target), default=np.inf)


@given(st.lists(choice, min_size=1, max_size=12))
def test_nothing_lies_below_the_hull_and_all_of_it_is_needed(choices: list[Choice]) -> None:
    found = hull(choices)
    assert {one for one in found} <= set(choices)
    places, heights = [one.bytes for one in found], [one.damage for one in found]
    assert places == sorted(set(places)) and heights == sorted(heights, reverse=True)
    slopes = np.diff(heights) / np.diff(places)
    assert (np.diff(slopes) > -1e-9).all()
    for one in choices:
        assert one.bytes < places[0] or one.damage >= np.interp(one.bytes, places, heights) - 1e-9
    assert places[0] == min(one.bytes for one in choices)
    assert heights[-1] == min(one.damage for one in choices)


@settings(max_examples=200)
@given(PARTS, st.integers(0, 800))
def test_it_fits_and_loses_at_most_a_step_of_a_hull(parts: dict[str, list[Choice]], target: int) -> None:
    if (best := exhaustive(parts, target)) == np.inf:
        smallest = sum(min(one.bytes for one in choices) for choices in parts.values())
        with pytest.raises(CannotShrink, match=f"the smallest is {smallest:,}"):
            share_out(parts, target)
        return
    found = share_out(parts, target)
    assert total(found) <= target and all(one in parts[path] for path, one in found.items())
    steps = [a.damage - b.damage for choices in parts.values() for a, b in itertools.pairwise(hull(choices))]
    assert sum(one.damage for one in found.values()) <= best + max(steps, default=0.0) + 1e-9


@given(PARTS, st.randoms())
def test_the_order_of_parts_and_choices_does_not_matter(parts: dict[str, list[Choice]], random: object) -> None:
    target = sum(max(one.bytes for one in choices) for choices in parts.values()) // 2
    shuffled = {path: random.sample(parts[path], len(parts[path])) for path in random.sample(sorted(parts), len(parts))}
    try:
        found = share_out(parts, target)
    except CannotShrink:
        return
    again = share_out(shuffled, target)
    assert {path: (one.bytes, one.damage) for path, one in found.items()} == {
        path: (one.bytes, one.damage) for path, one in again.items()}


def test_it_is_the_best_wherever_the_best_of_all_is_convex() -> None:
    rng = np.random.default_rng(0)
    parts = {str(i): [Choice(10 * n, float(d)) for n, d in enumerate(np.sort(rng.exponential(size=6))[::-1])]
             for i in range(4)}
    for vertex in hull([Choice(target, exhaustive(parts, target)) for target in range(0, 201, 10)]):
        assert abs(sum(one.damage for one in share_out(parts, vertex.bytes).values()) - vertex.damage) < 1e-9


@pytest.mark.parametrize(("text", "wanted"), [("1200000", 1_200_000), ("1.2MB", 1_200_000), ("900 kB", 900_000),
                                              ("1/20", 5000), ("1/2.5", 40_000), ("7B", 7)])
def test_a_target_is_bytes_or_a_part(text: str, wanted: int) -> None:
    assert bytes_of(text, 100_000) == wanted


@pytest.mark.parametrize("text", ["", "0", "1.2GB", "-5", "1/0", "2/3", "small"])
def test_what_is_no_target_is_a_sentence(text: str) -> None:
    with pytest.raises(UserError, match="it is bytes, as 1200000, 900kB or 1.2MB"):
        bytes_of(text, 100_000)
