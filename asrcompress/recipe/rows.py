"""Result rows of a recipe: what a model, its files and this machine say of a figure."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from asrcompress import files
from asrcompress.decoding import score as scoring
from asrcompress.measure import machine
from asrcompress.report import rows

Row = dict[str, Any]
MODEL = "row.json"  # in a model's folder: what all its result rows share
RESULT = "result.json"  # in the folder of a decoding: its row


def describe(folder: Path, **known: Any) -> None:
    """Write what every result row of the model in `folder` says, with the seconds and the precision of its training."""
    trained = files.read_json(folder / "train.json", "the report of the training")
    facts = {"train_seconds": trained.get("train_seconds"), "train_precision": trained.get("precision")}
    row = {key: value for key, value in {**facts, **known}.items() if key in rows.KEYS}
    files.write_json(folder / MODEL, {"name": folder.name, **row})


def of_model(folder: Path) -> Row:
    """What `describe` wrote. Errors: UserError where the model was not finished."""
    return files.read_json(folder / MODEL, "the description of the model")


def of_files(hyp: Path, packed: Path | None = None, dense_packed: Path | None = None,
             info: Path | None = None) -> Row:
    """What is known of hypotheses before they are scored: sizes in bytes, the machine, the scales of the search.

    `info` is a JSON object of `asrcompress measure`; beside `hyp` may stand HYP.json, as `asrcompress search` writes
    it.
    """
    row: Row = {"date": date.today().isoformat(), "commit": machine.commit(), "runtime": "torch"}
    if info:
        row |= {key: value for key, value in files.read_json(info).items() if key in rows.KEYS}
    beside = Path(f"{hyp}.json")
    if beside.exists():
        search = files.read_json(beside)
        row |= {key: search.get(key) for key in ("acoustic_scale", "lm_scale", "blank_penalty")}
        row["search_rtf"] = search.get("rtf")
    if packed:
        row["packed_bytes"] = files.require_file(packed, "the packed model").stat().st_size
    if dense_packed:
        row["dense_bytes"] = files.require_file(dense_packed, "the dense packed model").stat().st_size
    if row.get("dense_bytes") and row.get("packed_bytes"):
        row["ratio"] = round(row["dense_bytes"] / row["packed_bytes"], 4)
    return row


def search_of(options: Mapping[str, Any]) -> str:
    """What a row says of a recogniser's search: `greedy`, `beam-5`, or the folder of its graph, as `tgsmall`."""
    if options.get("graph"):
        return Path(options["graph"]).resolve().parent.name
    beam = options.get("beam", 1)
    return "greedy" if beam == 1 else f"beam-{beam}"


def score(ref: Path, hyp: Path, dense: Path | None, out: Path, row: Mapping[str, Any], unit: str = "word") -> str:
    """Score hypotheses, write OUT/score.json, OUT/align.txt and, last, OUT/result.json with the row; Kaldi's %WER line.

    Errors: UserError for texts that do not belong together and for a row with an unknown key.
    """
    checked = rows.check(dict(row), str(out / RESULT))
    result = scoring.score_files(ref, hyp, dense, unit)
    scoring.write(out, result)
    files.write_json(out / RESULT, {**checked, **result.row()})
    return result.line()


def collect(folder: Path, results: Path) -> None:
    """Put the rows of the decodings below a model's or a device file's folder into `results`.

    Each decoding leaves its row in a file of its own, and one process merges them, so that jobs on many machines need
    no lock on a shared file; a row that is merged twice is there once, and one of a model that was made again replaces
    the old one, whatever its size and its options are now. Errors: UserError for a damaged row.
    """
    found = [files.read_json(path, "the row") for path in sorted(folder.glob(f"decode/*/*/{RESULT}"))]
    rows.put(results, *(rows.check(row, str(folder)) for row in found), same=rows.FOLDER)
