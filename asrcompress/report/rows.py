"""Result rows: one JSON object a line; every table, plot and RESULTS.md is made from them."""

import json
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from asrcompress.errors import UserError
from asrcompress.files import atomic, locked, read_jsonl, require_file

Row = dict[str, Any]

_KINDS: dict[str, tuple[type, ...]] = {
    "name model structure options quantization coder when train_set test_set search runtime": (str,),
    "cpu command commit date note train_precision": (str,),  # options: those that are not the defaults, "rank=8 ..."
    "precision runtime_version cpu_flags": (str,),  # precision: of a device file; null in rows of packed files
    "parameters numbers packed_bytes dense_bytes device_bytes macs_per_second peak_rss_bytes": (int,),
    "rss_before_load_bytes": (int,),
    "seed threads words sub ins del": (int,),
    "size ratio rtf search_rtf wer ter p_better_than_dense": (int, float),
    "train_seconds load_seconds acoustic_scale lm_scale blank_penalty": (int, float),
    "device_ratio speedup chunk_p50_ms chunk_p95_ms chunk_p99_ms": (int, float),
    "ci95 speedup_ci95": (list,),
}
KEYS = {key: kinds for names, kinds in _KINDS.items() for key in names.split()}  # every key, and what it may hold
REQUIRED = ("name", "test_set", "search")
IDENTITY = ("name", "structure", "options", "quantization", "coder", "when", "size", "seed", "test_set", "search",
            "runtime", "precision")
FOLDER = ("name", "test_set", "search", "runtime", "precision", "seed")  # of rows whose models are folders of one exp/


def check(row: Any, where: str) -> Row:
    """`row` with its keys in order and null where it says nothing; UserError("<where>: ...") where it is not a row."""
    if not isinstance(row, dict):
        raise UserError(f"{where}: a result row is a JSON object, this is {json.dumps(row)[:40]}; remove the line")
    for key, value in row.items():
        if key not in KEYS:
            near = get_close_matches(key, KEYS, 1)
            raise UserError(f"{where}: unknown key '{key}'" + (f", did you mean '{near[0]}'?" if near else
                                                               f"; the keys are {', '.join(KEYS)}"))
        if value is not None and (not isinstance(value, KEYS[key]) or isinstance(value, bool)):
            wanted = " or ".join(kind.__name__ for kind in KEYS[key])
            raise UserError(f"{where}: {key} is {json.dumps(value)[:40]}, expected {wanted}; correct it")
    missing = [key for key in REQUIRED if not row.get(key)]
    if missing:
        raise UserError(f"{where}: the row has no {', '.join(missing)}; add {'it' if len(missing) == 1 else 'them'}")
    for key in ("ci95", "speedup_ci95"):
        bounds = row.get(key)
        if bounds and not (len(bounds) == 2 and all(isinstance(bound, int | float) for bound in bounds)):
            raise UserError(f"{where}: {key} is {json.dumps(bounds)[:40]}, expected two numbers; correct it")
    return {key: row.get(key) for key in KEYS}


def identity(row: Row) -> tuple[Any, ...]:
    """What makes two rows the same row."""
    return tuple(row.get(key) for key in IDENTITY)


def is_device(row: Row) -> bool:
    """Whether a row tells of a device file, and not of the packed model itself."""
    return row.get("precision") is not None


def read(path: Path | str) -> list[Row]:
    """The rows of a file, [] where there is none. UserError names the file and the line that is wrong."""
    return [check(row, f"{path}, line {number}") for number, row in enumerate(read_jsonl(path), 1)]


def merge(rows: Iterable[Row], more: Iterable[Row], same: Sequence[str] = IDENTITY) -> list[Row]:
    """Rows in the order of first appearance; where two are the same row, the later one's content stands.

    Each of `more` stands in the place of all rows that have its values of the keys `same`.
    """
    rows, more = list(rows), list(more)
    new = {tuple(map(row.get, same)) for row in more}
    found: dict[tuple[Any, ...], Row] = {}
    for row in [*rows, *more]:
        key = tuple(map(row.get, same))
        found[key if key in new else identity(row)] = row
    return list(found.values())


def read_all(paths: Iterable[Path | str]) -> list[Row]:
    """The rows of several files, merged. Errors: UserError where one does not exist, and those of `read`."""
    found: list[Row] = []
    for path in paths:
        found = merge(found, read(require_file(path, "the result rows")))
    return found


def put(path: Path | str, *more: Row, same: Sequence[str] = IDENTITY) -> None:
    """Add rows to the file, each in the place of the same row where there is one (see `merge`); safe beside other
    writers of this machine. Where nothing changes, the file is not written."""
    path = Path(path)
    more = tuple(check(row, f"the row for {path}") for row in more)
    with locked(path.parent):
        before = read(path)
        rows = merge(before, more, same)
        if rows != before:
            with atomic(path) as temporary:
                temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
                                     encoding="utf-8")


def parse(pairs: Iterable[str]) -> Row:
    """`key=value` arguments as a row: numbers where the key holds numbers, `null` or nothing after `=` for unknown.

    Errors: UserError for what is no pair or no number.
    """
    row: Row = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--row {pair}: expected key=value")
        try:
            row[key] = None if value in ("", "null") else value if str in KEYS.get(key, (str,)) else json.loads(value)
        except json.JSONDecodeError:
            raise UserError(f"--row {pair}: {key} holds a number, '{value}' is none") from None
    return row
