"""Figures published elsewhere, as a table of their own: they were never measured here, so they are no result rows.

A CSV file with the columns system, parameters, search, test_set, wer and source, one figure a line.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from asrcompress.errors import UserError
from asrcompress.files import require_file
from asrcompress.report import table


class Figure(NamedTuple):
    """A word error rate in percent; `parameters` may be empty."""

    system: str
    parameters: str
    search: str
    test_set: str
    wer: str
    source: str


def read(path: Path | str) -> list[Figure]:
    """The figures of a file. Errors: UserError, with the line, where it is not such a file."""
    with require_file(path, "the published figures").open(encoding="utf-8", newline="") as stream:
        lines = list(csv.reader(stream))
    if not lines or tuple(lines[0]) != Figure._fields:
        raise UserError(f"{path}, line 1: a file of published figures begins with {','.join(Figure._fields)}")
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(Figure._fields) or not _is_rate(line[4]):
            raise UserError(f"{path}, line {number}: '{','.join(line)}' is not {','.join(Figure._fields)} with a word "
                            "error rate in percent")
    return [Figure(*line) for line in lines[1:]]


def _is_rate(text: str) -> bool:
    try:
        return float(text) >= 0
    except ValueError:
        return False


def section(figures: Sequence[Figure]) -> list[str]:
    """The section of RESULTS.md: a line for each system, a column for each search on each test set."""
    if not figures:
        return []
    columns = list(dict.fromkeys((one.test_set, one.search) for one in figures))
    lines: dict[tuple[str, str, str], dict[tuple[str, str], str]] = {}
    for one in figures:
        lines.setdefault((one.system, one.parameters, one.source), {})[one.test_set, one.search] = one.wer
    head = ["system", "parameters", *(f"{test_set} {search}" for test_set, search in columns), "source"]
    cells = [[system, parameters, *(found.get(column, "") for column in columns), source]
             for (system, parameters, source), found in lines.items()]
    return ["## Published elsewhere\n",
            "WER % as others printed it, not measured here, with test sets and a choice of scales of their own.\n",
            table.to_markdown([head, *cells])]
