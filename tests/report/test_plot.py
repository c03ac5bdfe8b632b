from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from asrcompress.errors import UserError
from asrcompress.report import plot, rows, series
from asrcompress.report.series import Point


def row(name: str, structure: str, when: str, size: int, wer: float) -> rows.Row:
    return rows.check({"name": name, "structure": structure, "when": when, "packed_bytes": size, "wer": wer,
                       "quantization": "float32", "coder": "raw", "test_set": "dev", "search": "tgsmall",
                       "ci95": [wer - 1, wer + 1]}, "here")


ROWS = [row("dense", "dense", "none", 40_000_000, 30.0), row("svd-0.25", "svd", "after", 10_000_000, 31.0),
        row("svd-0.5", "svd", "after", 20_000_000, 30.5), row("small", "dense", "scratch", 10_000_000, 33.0)]


def colours(path: Path) -> set[str]:
    """The colours of a picture that cover more than a few pixels, as #RRGGBB."""
    pixels = (imread(path, format="png")[..., :3] * 255).round().astype(np.uint32) @ np.array([65536, 256, 1])
    found, counts = np.unique(pixels, return_counts=True)
    return {f"#{int(one):06X}" for one, count in zip(found, counts, strict=True) if count > 20}


@pytest.mark.parametrize("shown", [ROWS, ROWS[:1], [*ROWS, {**ROWS[0], "test_set": "other", "ci95": None}]])
def test_png(tmp_path: Path, shown: list[rows.Row]) -> None:
    plot.wer_vs_bytes(shown, tmp_path / "plot", note="a stand-in")
    assert (tmp_path / "plot").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    there = colours(tmp_path / "plot")
    assert "#000000" in there  # the dense model
    assert (plot.COLOURS["low rank"] in there) == (len(shown) > 1)


def test_a_model_above_the_axis_is_marked_in_the_colour_of_its_family(tmp_path: Path) -> None:
    plot.wer_vs_bytes([*ROWS, row("hashed", "hashed", "after", 9_000_000, 95.0)], tmp_path / "plot")
    assert plot.COLOURS["hashing"] in colours(tmp_path / "plot")


def test_limits_end_where_rates_stop_mattering() -> None:
    dense, near = Point("dense", 40, 30.0, (29.0, 31.0)), Point("near", 9, 35.0, (34.0, 36.0))
    far = Point("far", 9, 95.0)
    assert plot.limits({series.DENSE: [dense], "low rank": [near]})[1] == 36.5
    assert plot.limits({series.DENSE: [dense], "low rank": [near, far]})[1] == plot.CUT * 30 + 0.5
    assert plot.limits({series.DENSE: [dense], "low rank": [near]})[0] < 29


def test_two_test_sets_are_two_panels(tmp_path: Path) -> None:
    plot.wer_vs_bytes(ROWS, tmp_path / "one")
    plot.wer_vs_bytes([*ROWS, *({**one, "test_set": "other"} for one in ROWS)], tmp_path / "two")
    one, two = (imread(tmp_path / name, format="png") for name in ("one", "two"))
    assert two.shape[0] == 2 * one.shape[0] and two.shape[1] == one.shape[1]


def test_rows_without_sizes_are_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="both packed_bytes and the WER of tgsmall"):
        plot.wer_vs_bytes([{**ROWS[0], "packed_bytes": None}], tmp_path / "plot")
