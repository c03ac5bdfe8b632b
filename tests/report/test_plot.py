from pathlib import Path

import pytest
from matplotlib.image import imread

from asrcompress.errors import UserError
from asrcompress.report import plot, rows, table


def row(name: str, structure: str, when: str, size: int, wer: float, values: str = "float32") -> rows.Row:
    return rows.check({"name": name, "structure": structure, "when": when, "packed_bytes": size, "wer": wer,
                       "quantization": values, "coder": "raw", "test_set": "dev", "search": "tgsmall",
                       "ci95": [wer - 1, wer + 1]}, "here")


ROWS = [row("dense", "dense", "none", 40_000_000, 30.0), row("svd-0.25", "svd", "after", 10_000_000, 31.0),
        row("svd-0.5", "svd", "after", 20_000_000, 30.5), row("small", "dense", "scratch", 10_000_000, 33.0),
        row("svd-int8", "svd", "after", 3_000_000, 31.5, "int8")]


def test_a_curve_per_method() -> None:
    curves = plot.series(table.pivot(ROWS, "dev"), ("wer", "tgsmall"))
    points = {name: [(size, cell.rate) for size, cell in curve] for name, curve in curves.items()}
    assert points == {
        "dense": [(40, 30.0)], "svd, after training": [(10, 31.0), (20, 30.5)],
        "svd × int8, after training": [(3, 31.5)],
        plot.CONTROL: [(10, 33.0), (40, 30.0)]}  # the control's curve ends at the dense model


def test_column() -> None:
    large = {**ROWS[0], "search": "tglarge"}
    assert plot.column([*ROWS, large]) == ("wer", "tgsmall"), "more lines have it"
    assert plot.column([*ROWS, *({**row, "search": "tglarge"} for row in ROWS)]) == ("wer", "tglarge")
    assert plot.column([*ROWS, large], "tgsmall") == ("wer", "tgsmall")
    with pytest.raises(UserError, match="'huge'; there are tgsmall"):
        plot.column(ROWS, "huge")
    with pytest.raises(UserError, match="no row has an error rate"):
        plot.column([{**ROWS[0], "wer": None}])


@pytest.mark.parametrize("shown", [ROWS, ROWS[:1], [*ROWS, {**ROWS[0], "test_set": "other", "ci95": None}]])
def test_png(tmp_path: Path, shown: list[rows.Row]) -> None:
    plot.wer_vs_bytes(shown, tmp_path / "plot")
    assert (tmp_path / "plot").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert imread(tmp_path / "plot", format="png")[..., :3].std() > 0.02  # something is drawn


def test_no_two_of_many_methods_look_alike() -> None:
    rows = [{**ROWS[0], "name": f"m{i}", "structure": f"m{i}", "when": "after"} for i in range(40)]
    styles = plot.styles_of(table.pivot(rows, "dev")).values()
    looks = [(style["color"], style["marker"]) for style in styles]
    assert len(looks) == 42 and len(set(looks)) == 42
