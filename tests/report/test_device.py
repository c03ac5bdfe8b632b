import csv
import io
from pathlib import Path
from typing import Any

import pytest

from asrcompress.cli import main
from asrcompress.report import device, results_md, rows, table


def row(name: str, precision: str | None, search: str, size: int, rate: float, **more: Any) -> rows.Row:
    runtime = "onnxruntime" if search == "tgsmall" else "sherpa-onnx"
    rates = {"ter": rate} if search == "greedy" else {"wer": rate, "words": 99}
    return rows.check({"name": name, "structure": name.split("-")[0], "when": "after" if "-" in name else "none",
                       "precision": precision, "search": search, "runtime": runtime if precision else "torch",
                       "test_set": "dev", "device_bytes": size, "packed_bytes": 40_000_000,
                       "ci95": [rate - 1, rate + 1], "rtf": 0.01, **rates, **more}, "here")


MEASURED = {"speedup": 3.512, "speedup_ci95": [3.4, 3.62], "device_ratio": 4.0, "rtf": 0.0021,
            "runtime_version": "1.2", "cpu_flags": "avx2 avx512_vnni"}
ROWS = [
    row("svd-0.25", "float16", "HLG", 5_000_000, 33.5, peak_rss_bytes=400_000_000, rss_before_load_bytes=45_000_000),
    row("svd-0.25", "float32", "HLG", 10_000_000, 33.4),
    row("svd-0.25", "float32", "tgsmall", 10_000_000, 33.1, **MEASURED, p_better_than_dense=0.01),
    row("dense", "float32", "HLG", 40_000_000, 31.0),
    row("dense", "float32", "greedy", 40_000_000, 35.0, rtf=0.012),
    row("dense", None, "tgsmall", 0, 30.5),
]


def test_the_two_tables_share_no_line() -> None:
    assert [line.facts["search"] for line in table.pivot(ROWS, "dev")] == ["tgsmall"]
    assert [(line.facts["name"], line.facts["precision"]) for line in device.lines(ROWS, "dev")] == [
        ("dense", "float32"), ("svd-0.25", "float32"), ("svd-0.25", "float16")]
    assert (device.test_sets(ROWS[-1:]), table.test_sets(ROWS[:-1])) == ([], [])
    assert len(rows.merge(ROWS, ROWS)) == len(ROWS)  # precision tells rows apart


def test_cells() -> None:
    head, dense, svd, half = device.table(ROWS, "dev")
    assert head == ["name", "precision", "MB", "ratio", "RTF network", "x dense", "RTF greedy", "RTF HLG",
                    "peak MB greedy", "peak MB HLG", "TER % greedy, sherpa-onnx", "WER % HLG, sherpa-onnx",
                    "WER % tgsmall, k2"]
    assert dense == ["dense", "float32", "40.00", "", "", "", "0.0120", "0.0100", "", "", "35.0 [34.0, 36.0]",
                     "31.0 [30.0, 32.0]", ""]
    assert svd[2:6] == ["10.00", "4.00", "0.0021", "3.51 [3.40, 3.62]"]
    assert svd[-1] == "33.1 [32.1, 34.1] p=0.01"
    assert half[8:10] == ["", "400 (45)"]


def test_csv_parses_back_in_full_precision() -> None:
    read = list(csv.DictReader(io.StringIO(device.to_csv(ROWS))))
    assert [(line["name"], line["precision"], line["search"]) for line in read] == [
        ("dense", "float32", "greedy"), ("dense", "float32", "HLG"), ("svd-0.25", "float32", "HLG"),
        ("svd-0.25", "float32", "tgsmall"), ("svd-0.25", "float16", "HLG")]
    assert (read[3]["speedup"], read[3]["speedup_ci95_low"], read[3]["wer"], read[3]["ci95_high"]) == (
        "3.512", "3.4", "33.1", "34.1")


def test_the_page_has_a_section(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for one in ROWS:
        rows.put(tmp_path / "results.jsonl", one)
    assert main(["report", "--rows", str(tmp_path / "results.jsonl"), "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / results_md.PAGE).read_text()
    for part in ("## On the device\n\n### dev\n", "| svd-0.25 | float16 | 5.00 |", "(device.csv)",
                 "* runtimes: onnxruntime 1.2", "* its flags: avx2 avx512_vnni"):
        assert part in page
    assert (tmp_path / "out" / results_md.DEVICES).exists()
    assert "dev, on the device" in capsys.readouterr().out
    rows_alone = tmp_path / "alone.jsonl"
    rows.put(rows_alone, ROWS[-1])
    assert main(["report", "--rows", str(rows_alone), "--out", str(tmp_path / "alone")]) == 0
    assert not (tmp_path / "alone" / results_md.DEVICES).exists()
    assert "On the device" not in (tmp_path / "alone" / results_md.PAGE).read_text()


def test_a_bad_interval_is_named() -> None:
    with pytest.raises(rows.UserError, match="speedup_ci95 is .* expected two numbers"):
        rows.check(ROWS[0] | {"speedup_ci95": [1]}, "here")
