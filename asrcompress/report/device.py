"""Rows of device files as a table: one line per model and precision, a group of columns per runtime and search."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from asrcompress.report import table as tables
from asrcompress.report.rows import Row, is_device
from asrcompress.report.table import Cell

LINE = (*(key for key in tables.LINE if key != "runtime"), "precision")
ENGINES = {"onnxruntime": "k2"}  # who searches, where it is not the runtime itself
Column = tuple[str, str]  # runtime, search


@dataclass
class Line:
    """One device file: what is known of it, and the row of each (runtime, search)."""

    facts: Row
    rows: dict[Column, Row]

    def is_dense(self) -> bool:
        """The file that the others are compared with."""
        facts = self.facts
        return (facts["structure"], facts["precision"]) == ("dense", "float32") and facts["when"] in (None, "none")


def test_sets(rows: list[Row]) -> list[str]:
    """The test sets that rows of device files have, in order of appearance."""
    return list(dict.fromkeys(row["test_set"] for row in rows if is_device(row)))


def lines(rows: list[Row], test_set: str) -> list[Line]:
    """The lines of one test set: the dense float32 file first, then by falling size."""
    found: dict[tuple[Any, ...], Line] = {}
    for row in (row for row in rows if row["test_set"] == test_set and is_device(row)):
        line = found.setdefault(tuple(row[key] for key in LINE), Line({}, {}))
        line.facts = {key: value if line.facts.get(key) is None else line.facts[key] for key, value in row.items()}
        line.rows[row["runtime"], row["search"]] = row
    return sorted(found.values(), key=lambda line: (not line.is_dense(), -(line.facts["device_bytes"] or 0)))


def columns(found: list[Line]) -> list[Column]:
    """The (runtime, search) that occur: on the device first, and greedy search before others."""
    there = dict.fromkeys(column for line in found for column in line.rows)
    return sorted(there, key=lambda column: (column[0] in ENGINES, column[1] != "greedy"))


def table(rows: list[Row], test_set: str) -> list[list[str]]:
    """Headings and lines, as text."""
    found = lines(rows, test_set)
    there = columns(found)
    searches = [column for column in there if column[0] not in ENGINES]
    head = ["name", "precision", "MB", "ratio", "RTF network", "x dense"]
    head += [f"RTF {search}" for _, search in searches] + [f"peak MB {search}" for _, search in searches]
    head += [_rate_heading(found, column) for column in there]
    return [head, *(_cells(line, there, searches) for line in found)]


def _cells(line: Line, there: list[Column], searches: list[Column]) -> list[str]:
    facts = line.facts
    network = next((row["rtf"] for (runtime, _), row in line.rows.items() if runtime in ENGINES), None)
    out = [facts["name"], facts["precision"], _text(facts["device_bytes"], lambda n: f"{n / 1e6:.2f}"),
           _text(facts["device_ratio"], lambda x: f"{x:.2f}"), _text(network, lambda x: f"{x:.4f}"), _speedup(facts)]
    out += [_text(line.rows.get(column, {}).get("rtf"), lambda x: f"{x:.4f}") for column in searches]
    out += [_peak(line.rows.get(column, {})) for column in searches]
    return out + [_rate(line.rows[column]).text() if column in line.rows else "" for column in there]


def _text(value: Any, how: Callable[[Any], str]) -> str:
    return "" if value is None else how(value)


def _speedup(facts: Row) -> str:
    low, high = facts["speedup_ci95"] or (None, None)
    return _text(facts["speedup"], lambda x: f"{x:.2f}") + (f" [{low:.2f}, {high:.2f}]" if low is not None else "")


def _peak(row: Row) -> str:
    before = _text(row.get("rss_before_load_bytes"), lambda n: f" ({n / 1e6:.0f})")
    return _text(row.get("peak_rss_bytes"), lambda n: f"{n / 1e6:.0f}") + before


def _rate(row: Row) -> Cell:
    return Cell(row["ter"] if row["wer"] is None else row["wer"], row["ci95"], row["p_better_than_dense"])


def _rate_heading(found: list[Line], column: Column) -> str:
    rate = "TER" if all(line.rows[column]["wer"] is None for line in found if column in line.rows) else "WER"
    runtime, search = column
    return f"{rate} % {search}, {ENGINES.get(runtime, runtime)}"


def to_csv(rows: list[Row]) -> str:
    """Every row of a device file in full precision, one line each."""
    keys = ["test_set", *LINE, "runtime", "runtime_version", "search", "device_bytes", "device_ratio", "packed_bytes",
            "macs_per_second", "rtf", "search_rtf", "load_seconds", "chunk_p50_ms", "chunk_p95_ms", "chunk_p99_ms",
            "speedup", "peak_rss_bytes", "rss_before_load_bytes", "wer", "ter", "p_better_than_dense"]
    bounds = ("speedup_ci95", "ci95")
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(keys + [f"{key}_{end}" for key in bounds for end in ("low", "high")])
    for name in test_sets(rows):
        for line in lines(rows, name):
            for column in columns([line]):
                row = line.rows[column]
                ends = [end for key in bounds for end in row[key] or (None, None)]
                writer.writerow([row[key] for key in keys] + ends)
    return stream.getvalue()


def rich_table(rows: list[Row], test_set: str) -> Any:
    """The same for a terminal, the dense float32 file in bold."""
    styles = ["bold" if line.is_dense() else None for line in lines(rows, test_set)]
    return tables.to_rich(table(rows, test_set), f"{test_set}, on the device", styles)
