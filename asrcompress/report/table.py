"""Rows as a table: one line per model and compression level, one group of columns per search."""

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from asrcompress.report.rows import Row, is_device

# What makes a line.
LINE = ("name", "model", "structure", "options", "quantization", "coder", "when", "size", "seed", "runtime")
VARYING = ("model", "options", "quantization", "coder", "train_precision", "seed", "runtime")  # only where lines differ
LEFT = {"name", "model", "structure", "options", "quantization", "coder", "trained in", "when", "runtime",
        "precision", "seeds"}  # words; the others are numbers


@dataclass
class Cell:
    """One error rate in percent, its 95 % interval, the probability of being better than dense, how many words (or
    tokens) were deleted, and the blank penalty of the search."""

    rate: float
    ci95: list[float] | None
    p: float | None
    deleted: int | None = None
    blank_penalty: float | None = None

    def text(self) -> str:
        """The cell as text: rate, interval, p; what is unknown is left out."""
        out = f"{self.rate:.1f}"
        if self.ci95:
            out += f" [{self.ci95[0]:.1f}, {self.ci95[1]:.1f}]"
        return out if self.p is None else f"{out} p={self.p:.2f}"


@dataclass
class Line:
    """One model at one compression level: what is known of it, and a cell per (rate, search)."""

    facts: Row
    cells: dict[tuple[str, str], Cell]

    def is_dense(self) -> bool:
        """The dense reference itself, which every level starts from."""
        return self.facts["structure"] == "dense" and self.facts["when"] in (None, "none")

    def is_control(self) -> bool:
        """A smaller dense model, trained from scratch."""
        return self.facts["structure"] == "dense" and self.facts["when"] == "scratch"


def test_sets(rows: list[Row]) -> list[str]:
    """The test sets that rows of packed files have, in order of appearance."""
    return list(dict.fromkeys(row["test_set"] for row in rows if not is_device(row)))


def pivot(rows: list[Row], test_set: str) -> list[Line]:
    """The lines of one test set: the dense reference first, then by falling size of the packed file.

    Rows of device files have a table of their own: `asrcompress.report.device`.
    """
    lines: dict[tuple[Any, ...], Line] = {}
    for row in (row for row in rows if row["test_set"] == test_set and not is_device(row)):
        line = lines.setdefault(tuple(row[key] for key in LINE), Line({}, {}))
        for key, value in row.items():
            line.facts[key] = value if line.facts.get(key) is None else line.facts[key]
        for rate in ("wer", "ter"):
            if row[rate] is not None:
                line.cells[rate, row["search"]] = Cell(row[rate], row["ci95"], row["p_better_than_dense"], row["del"],
                                                       row["blank_penalty"])
    return sorted(lines.values(), key=lambda line: (not line.is_dense(), -(line.facts["packed_bytes"] or 0)))


def rates(lines: list[Line]) -> list[tuple[str, str]]:
    """The (rate, search) columns: token error rates first, then as the rows have them."""
    found = dict.fromkeys(column for line in lines for column in line.cells)
    return sorted(found, key=lambda column: column[0] == "wer")


FACTS: dict[str, tuple[str, Callable[[Any], str]]] = {  # row key -> heading, and how its value is written
    "name": ("name", str), "model": ("model", str), "structure": ("structure", str), "options": ("options", str),
    "quantization": ("quantization", str), "coder": ("coder", str), "train_precision": ("trained in", str),
    "when": ("when", str), "seed": ("seed", str), "runtime": ("runtime", str),
    "parameters": ("parameters (M)", lambda n: f"{n / 1e6:.2f}"), "packed_bytes": ("MB", lambda n: f"{n / 1e6:.2f}"),
    "ratio": ("ratio", lambda x: f"{x:.2f}"), "macs_per_second": ("MMAC/s", lambda n: f"{n / 1e6:.0f}"),
    "rtf": ("RTF", lambda x: f"{x:.4f}"), "train_seconds": ("training s", lambda s: f"{s:,.0f}"),
}
SPARSE = ("rtf", "train_seconds")  # columns that stand only where a line has something to say in them


def table(lines: list[Line], keys: Iterable[str] = tuple(FACTS), columns: list[tuple[str, str]] | None = None
          ) -> list[list[str]]:
    """Headings and lines, as text: of each line what it says under `keys`, and its `columns`, by default all rates."""
    varying = {key for key in VARYING if len({line.facts[key] for line in lines}) > 1}
    keys = [key for key in keys if key not in VARYING or key in varying]
    keys = [key for key in keys if key not in SPARSE or any(line.facts[key] is not None for line in lines)]
    columns = rates(lines) if columns is None else columns
    out = [[FACTS[key][0] for key in keys] + headings(columns)]
    for line in lines:
        facts = ["" if line.facts[key] is None else FACTS[key][1](line.facts[key]) for key in keys]
        out.append(facts + [line.cells[column].text() if column in line.cells else "" for column in columns])
    return out


def headings(columns: list[tuple[str, str]]) -> list[str]:
    """What stands above (rate, search) columns."""
    return [f"{rate.upper()} % {search}" for rate, search in columns]


def by_size(lines: list[Line], column: tuple[str, str]) -> list[list[str]]:
    """Structures in float32 against the fraction of the dense model's parameters that they keep; the best first where
    most stand.

    A star: not significantly above the dense model (p >= 0.05). A small model from the start stands at the nearest size
    within a sixth of its own. [] where that is no table.
    """
    shown = [line for line in lines if column in line.cells and line.facts["quantization"] in (None, "float32")]
    dense = next((line.facts["parameters"] for line in shown if line.is_dense()), None)
    sizes = sorted({s for line in shown if (s := line.facts["size"]) and s < 1}, reverse=True)
    found: dict[str, dict[float, list[Cell]]] = {}
    for line in shown:
        own = line.facts["size"] if (line.facts["size"] or 1) < 1 else (line.facts["parameters"] or 0) / (dense or 1)
        near = min(sizes, key=lambda size: max(own / size, size / max(own, 1e-9)), default=0)
        if near and 5 / 6 < own / near < 6 / 5 and not line.is_dense():
            when = line.facts["when"]
            options = f" ({line.facts['options']})" if line.facts["options"] else ""
            label = line.facts["structure"] + options + ("" if when == "after" else f", {when}")
            found.setdefault(label, {}).setdefault(near, []).append(line.cells[column])
    if len(found) < 2 or len(sizes) < 2:
        return []
    most = max(sizes, key=lambda size: sum(size in cells for cells in found.values()))
    ranked = sorted(found, key=lambda label: min((c.rate for c in found[label].get(most, [])), default=float("inf")))
    return [["structure", *(f"{size:g}" for size in sizes)]] + [
        [label, *(" / ".join(f"{c.rate:.1f}{'*' * ((c.p or 0) >= 0.05)}" for c in found[label].get(size, []))
                  for size in sizes)] for label in ranked]


def by_seed(lines: list[Line]) -> list[list[str]]:
    """Models that were made with several seeds (NAME, NAME-seed1, ...): the mean of each rate and its sample standard
    deviation, of those seeds that have this rate. [] where no model was made twice.
    """
    groups: dict[tuple[Any, ...], list[Line]] = {}
    for line in lines:
        name = line.facts["name"].removesuffix(f"-seed{line.facts['seed']}")
        alike = (line.facts[key] for key in LINE if key not in ("name", "seed", "size"))
        groups.setdefault((name, *alike), []).append(line)
    several = {key: own for key, own in groups.items() if len({line.facts["seed"] for line in own}) > 1}
    columns = rates([line for own in several.values() for line in own])
    out = [["name", "seeds", FACTS["packed_bytes"][0], *headings(columns)]]
    for (name, *_), own in several.items():
        own.sort(key=lambda line: line.facts["seed"] or 0)
        sizes = [line.facts["packed_bytes"] for line in own if line.facts["packed_bytes"]]
        found = [[line.cells[column].rate for line in own if column in line.cells] for column in columns]
        out.append([name, ", ".join(str(line.facts["seed"]) for line in own),
                    FACTS["packed_bytes"][1](fmean(sizes)) if sizes else "",
                    *(f"{fmean(some):.1f} ± {stdev(some):.1f}" if len(some) > 1 else "" for some in found)])
    return out if several else []


def markdown(lines: list[Line]) -> str:
    """A Markdown table, numbers to the right."""
    return to_markdown(table(lines))


def to_markdown(cells: list[list[str]]) -> str:
    """Headings and lines as Markdown."""
    head, *body = ([cell.replace("|", "\\|") for cell in line] for line in cells)
    rule = [":--" if heading in LEFT else "--:" for heading in head]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [head, rule, *body])


def to_csv(rows: list[Row]) -> str:
    """Every test set in one CSV, in full precision: a rate, its interval, p, deletions and blank penalty, a column
    each."""
    lines = [line for test_set in test_sets(rows) for line in pivot(rows, test_set)]
    measured = ("parameters", "numbers", "packed_bytes", "ratio", "macs_per_second", "rtf", "peak_rss_bytes",
                "train_seconds")
    facts = ["test_set", *LINE, *measured]
    columns = rates(lines)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    parts_of = ("", "_low", "_high", "_p", "_deleted", "_blank_penalty")
    writer.writerow(facts + [f"{search}_{rate}{part}" for rate, search in columns for part in parts_of])
    for line in lines:
        cells = [line.cells.get(column) for column in columns]
        parts = [[cell.rate, *(cell.ci95 or (None, None)), cell.p, cell.deleted, cell.blank_penalty] if cell
                 else [None] * len(parts_of) for cell in cells]
        writer.writerow([line.facts[key] for key in facts] + [value for part in parts for value in part])
    return stream.getvalue()


def rich_table(lines: list[Line], title: str) -> Any:
    """The same for a terminal: the dense reference in bold, the controls in italics."""
    styles = ["bold" if line.is_dense() else "italic" if line.is_control() else None for line in lines]
    return to_rich(table(lines), title, styles)


def to_rich(cells: list[list[str]], title: str, styles: list[str | None]) -> Any:
    """Headings and lines for a terminal."""
    from rich.table import Table

    head, *body = cells
    out = Table(title=title, title_justify="left")
    for heading in head:
        out.add_column(heading, justify="left" if heading in LEFT else "right", overflow="fold")
    for line, style in zip(body, styles, strict=True):
        out.add_row(*line, style=style)
    return out
