"""Result rows as one HTML page to explore: sorted, filtered, drawn against a cost of choice, without a network.

The page holds plotly.js, the rows and, where the folder of the models is given, what each byte of a packed file is for
and the texts of each decoding.
"""

import json
from html import escape
from pathlib import Path
from typing import Any

from asrcompress.compression import packed
from asrcompress.decoding.score import read_alignment
from asrcompress.errors import UserError
from asrcompress.files import atomic, read_json, require_file
from asrcompress.report import plot, rows, series, table
from asrcompress.report.rows import Row

TEMPLATE = Path(__file__).with_name("page.html")
LIBRARY, DATA, TITLE = "/*plotly.js*/", "/*data*/", "<!--title-->"
ALIGNED, RESULT, PACKED = "align.txt", "result.json", "model.packed"
SHARED = ("packed_bytes", "dense_bytes", "device_bytes", "parameters", "macs_per_second", "rtf", "peak_rss_bytes",
          "train_seconds")  # what is of a file, whatever the test set and search


def write(found: list[Row], out: Path, title: str = "Results", note: str = "", exp: Path | None = None) -> None:
    """Write the page of these rows; `exp` is a recipe's exp/ folder. Errors: UserError where there are no rows or no
    such folder, and PackedError for a packed file below it that is damaged."""
    from plotly.offline import get_plotlyjs

    if not found:
        raise UserError("there are no result rows to report; score some hypotheses with --rows first")
    said = {"title": title, "note": note, "rows": described(found), "texts": {}, "references": {}, "files": {},
            "file_of": {}}
    if exp:
        said |= details(require_file(exp, "the folder of the models"), found)
    data = json.dumps(said, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")  # no end of the script
    page = TEMPLATE.read_text(encoding="utf-8").replace(TITLE, escape(title))
    head, _, rest = page.partition(LIBRARY)
    middle, _, tail = rest.partition(DATA)
    with atomic(out) as temporary:
        temporary.write_text(head + get_plotlyjs() + middle + data + tail, encoding="utf-8")


def described(found: list[Row]) -> list[Row]:
    """The rows with an error rate, without what is null, with `key`, `family` and `colour`. What only another search of
    the same model says, such as its real-time factor, is filled in."""
    shared: dict[tuple[Any, ...], Row] = {}
    for row in found:
        facts = shared.setdefault(_file(row), {})
        facts |= {key: row[key] for key in SHARED if row[key] is not None and facts.get(key) is None}
    compressed = series.compressed_model(table.Line(row, {}) for row in found)
    out = []
    for row in (row for row in found if row["wer"] is not None or row["ter"] is not None):
        whole = {**shared[_file(row)], **{key: value for key, value in row.items() if value is not None}}
        family = series.family(table.Line(row, {}), compressed)
        out.append({**whole, "key": key(row), "family": family, "colour": plot.colour(family)})
    return out


def _file(row: Row) -> tuple[Any, ...]:
    """What makes two rows those of one file in one runtime."""
    return tuple(row[key] for key in rows.IDENTITY if key not in ("test_set", "search"))


def key(row: Row) -> str:
    """The name of a row among all."""
    return json.dumps(rows.identity(row))


def details(exp: Path, found: list[Row]) -> dict[str, Any]:
    """`texts`: row -> (words, errors) of each utterance, null where it has none; `references`: test set and unit ->
    utterance -> words; `files`: packed file -> `itemised`; `file_of`: row -> packed file. Errors: UserError where two
    decodings of a test set are of other utterances."""
    texts: dict[str, list[list[Any] | None]] = {}
    references: dict[str, dict[str, str]] = {}
    files: dict[str, list[list[Any]]] = {}
    file_of: dict[str, str] = {}
    wanted = {key(row) for row in found}
    for path in sorted(exp.rglob(RESULT)):
        row = rows.check(read_json(path, "the row"), str(path))
        if key(row) not in wanted:
            continue
        said = read_alignment(path.with_name(ALIGNED))
        unit = references.setdefault(f"{row['test_set']} {'wer' if row['wer'] is not None else 'ter'}",
                                     {name: reference for name, (reference, _, _) in said.items()})
        if said.keys() != unit.keys():
            raise UserError(f"{path.parent} was scored on other utterances of {row['test_set']} than the decodings "
                            "before it; decode it again")
        texts[key(row)] = [[said[name][1], said[name][2]] if said[name][2] else None for name in unit]
        above = (folder for folder in path.parents if folder.is_relative_to(exp))
        model = next((folder / PACKED for folder in above if (folder / PACKED).exists()), None)
        if model and not rows.is_device(row):
            file_of[key(row)] = name = str(model.relative_to(exp))
            if name not in files:  # one file, many decodings
                files[name] = itemised(model)
    return {"texts": texts, "references": references, "files": files, "file_of": file_of}


def itemised(model: Path) -> list[list[Any]]:
    """[tensor, shape, structure, quantization, coder, bytes] of each entry of a packed file. Errors: PackedError."""
    return [[one["name"], " x ".join(map(str, one["shape"])),
             *(one[key] for key in ("structure", "quantization", "coder", "bytes"))] for one in packed.info(model)]
