import pytest

from asrcompress.errors import UserError
from asrcompress.report import rows, series, table
from asrcompress.report.series import Point

RATE = ("wer", "tgsmall")


def row(name: str, structure: str, when: str, size: int, wer: float, quantization: str = "float32") -> rows.Row:
    return rows.check({"name": name, "structure": structure, "when": when, "packed_bytes": size, "wer": wer,
                       "quantization": quantization, "coder": "raw", "test_set": "dev", "search": "tgsmall",
                       "ci95": [wer - 1, wer + 1]}, "here")


ROWS = [row("dense", "dense", "none", 40_000_000, 30.0), row("svd-0.25", "svd", "after", 10_000_000, 31.0),
        row("cp-0.5", "cp", "after", 20_000_000, 30.5), row("small", "dense", "scratch", 10_000_000, 33.0),
        row("svd-int8", "svd", "after", 3_000_000, 31.5, "int8"),
        row("int8", "dense", "after", 10_000_000, 30.1, "int8"),
        row("hashed", "hashed", "scratch", 9_000_000, 40.0), row("odd", "mine", "after", 9_000_000, 41.0)]


def test_families_are_the_folders_of_the_structures() -> None:
    found = series.families(table.pivot(ROWS, "dev"), RATE)
    assert {name: [point.name for point in points] for name, points in found.items()} == {
        "dense": ["dense"], "control": ["small"], "quantized": ["int8"], "low rank": ["svd-0.25", "cp-0.5"],
        "low rank, quantized": ["svd-int8"], "hashing": ["hashed"], series.OTHER: ["odd"]}
    assert found["low rank"][0] == Point("svd-0.25", 10.0, 31.0, (30.0, 32.0))


def test_what_is_made_of_a_control_is_a_control() -> None:
    made = [{**row("dense", "dense", "none", 40, 30.0), "model": "large"},
            {**row("int8", "dense", "after", 10, 30.0, "int8"), "model": "large"},
            {**row("small-int8", "dense", "after", 2, 33.0, "int8"), "model": "small"}]
    found = series.families(table.pivot(made, "dev"), RATE)
    assert {name: [point.name for point in points] for name, points in found.items()} == {
        "dense": ["dense"], "quantized": ["int8"], "control": ["small-int8"]}


def test_front_has_no_model_that_a_smaller_one_beats() -> None:
    points = [Point("a", 1, 50), Point("b", 2, 40), Point("c", 3, 45), Point("d", 4, 30), Point("e", 4.05, 29),
              Point("f", 9, 29)]
    assert [point.name for point in series.front(points)] == ["a", "b", "e"]  # d and e are of one size
    assert [point.name for point in series.front(points, alike=1.0)] == ["a", "b", "d", "e"]


def test_small_test_sets_have_no_panel() -> None:
    few = [{**one, "test_set": "few"} for one in ROWS[:2]]
    assert list(series.panels([*ROWS, *few], RATE)) == ["dev"]
    assert list(series.panels(few, RATE)) == ["few"]  # nothing else is there
    assert list(series.panels([*ROWS, *({**one, "test_set": "same"} for one in ROWS)], RATE)) == ["dev", "same"]


def test_rate_to_draw() -> None:
    large = {**ROWS[0], "search": "tglarge"}
    assert series.rate_to_draw([*ROWS, large]) == ("wer", "tgsmall"), "more lines have it"
    assert series.rate_to_draw([*ROWS, *({**row, "search": "tglarge"} for row in ROWS)]) == ("wer", "tglarge")
    alike = [{**ROWS[1], "search": "tglarge"}, ROWS[0], large, ROWS[1]]  # two lines each; the table begins with tgsmall
    assert series.rate_to_draw(alike) == ("wer", "tgsmall"), "it comes last in the rows"
    assert series.rate_to_draw([*ROWS, large], "tglarge") == ("wer", "tglarge")
    with pytest.raises(UserError, match="'huge'; there are tgsmall"):
        series.rate_to_draw(ROWS, "huge")
    with pytest.raises(UserError, match="no row of a packed file has an error rate"):
        series.rate_to_draw([{**ROWS[0], "wer": None}])


def test_the_front_of_all_families_has_lines_of_each() -> None:
    found = series.front_of(table.pivot(ROWS, "dev"), RATE)
    assert [line.facts["name"] for line in found] == ["svd-int8", "int8", "dense"]
