"""Word error rate with its interval, an alignment file, and a row in results.jsonl.

  asrcompress score --ref text --hyp hyp.txt --out DIR [--dense-hyp dense/hyp.txt] \\
      [--rows results.jsonl --row name=svd-0.25-after --row test_set=dev-clean-2 --row search=tgsmall ...]
  asrcompress score --ref heldout/text --sweep DIR      chooses the scales of `asrcompress search`: DIR/best.json
"""

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ref", type=Path, required=True, help="references: UTT-ID WORD WORD ..., one line each")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--hyp", type=Path, help="hypotheses, in the same form")
    what.add_argument("--sweep", type=Path, metavar="DIR",
                      help="choose the best of DIR/ac<scale>[-lm<scale>][-bp<penalty>].txt")
    parser.add_argument("--unit", choices=("word", "token"), default="word", help="token: the rate is `ter`, not `wer`")
    parser.add_argument("--dense-hyp", type=Path, help="the dense model's hypotheses, for p(better than dense)")
    parser.add_argument("--out", type=Path, help="a folder for score.json and align.txt, or a file X.json")
    parser.add_argument("--rows", type=Path, help="results.jsonl, to add or replace this result's row")
    parser.add_argument("--row", action="append", default=[], metavar="KEY=VALUE", help="what the row says (repeat)")
    parser.add_argument("--packed", type=Path, help="the packed model that was decoded: its size in bytes")
    parser.add_argument("--dense-packed", type=Path, help="the dense model's packed file, for the ratio")
    parser.add_argument("--model-info", type=Path, help="what `asrcompress measure --json` said of the model")


def run(args: argparse.Namespace) -> None:
    if args.sweep:
        choose(args)
    else:
        score(args)


def score(args: argparse.Namespace) -> None:
    import sys

    from asrcompress.decoding import score as scoring
    from asrcompress.report import rows

    row = rows.check({**described(args), **rows.parse(args.row)}, "--row") if args.rows else {}
    result = scoring.score_files(args.ref, args.hyp, args.dense_hyp, args.unit)
    if result.missing:
        print(f"{args.hyp}: {len(result.missing)} utterances of {args.ref} have no hypothesis (the first is "
              f"{result.missing[0]}); their words count as deletions", file=sys.stderr)
    if args.out:
        scoring.write(args.out, result)
    if args.rows:
        rows.put(args.rows, {**row, **result.row()})
    print(result.line())


def described(args: argparse.Namespace) -> dict[str, Any]:
    """What the files and this machine say of a row; --row has the last word."""
    from datetime import date

    from asrcompress.files import require_file
    from asrcompress.measure import machine
    from asrcompress.report import rows

    row: dict[str, Any] = {"date": date.today().isoformat(), "commit": machine.commit(), "runtime": "torch"}
    if args.model_info:
        row |= {key: value for key, value in read_json(args.model_info).items() if key in rows.KEYS}
    beside = Path(f"{args.hyp}.json")  # what `asrcompress search` says of its own work
    if beside.exists():
        search = read_json(beside)
        row |= {key: search.get(key) for key in ("acoustic_scale", "lm_scale", "blank_penalty")}
        row["search_rtf"] = search.get("rtf")
    if args.packed:
        row["packed_bytes"] = require_file(args.packed, "the packed model").stat().st_size
    if args.dense_packed:
        row["dense_bytes"] = require_file(args.dense_packed, "the dense packed model").stat().st_size
    if row.get("dense_bytes") and row.get("packed_bytes"):
        row["ratio"] = round(row["dense_bytes"] / row["packed_bytes"], 4)
    return row


def read_json(path: Path) -> dict[str, Any]:
    import json

    from asrcompress.errors import UserError
    from asrcompress.files import require_file

    try:
        found = json.loads(require_file(path, "the JSON file").read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{path} is not a JSON object; write it again with the command that made it")
    return found


def choose(args: argparse.Namespace) -> None:
    import json

    from rich.console import Console
    from rich.table import Table

    from asrcompress.decoding.score import sweep
    from asrcompress.files import atomic
    from asrcompress.lang import text

    found = sweep(text.read(args.ref), args.sweep, args.unit)
    rate = "wer" if args.unit == "word" else "ter"
    scales = ("acoustic_scale", "lm_scale", "blank_penalty")
    table = Table(*(scale.replace("_", " ") for scale in scales), f"{rate.upper()} %")
    for row in sorted(found, key=lambda row: [row[scale] for scale in scales]):
        table.add_row(*(f"{row[scale]:g}" for scale in scales), f"{row[rate]:.2f}",
                      style="bold" if row is found[0] else None)
    Console().print(table)
    with atomic(args.out or args.sweep / "best.json") as temporary:
        temporary.write_text(json.dumps(found[0]) + "\n", encoding="utf-8")
    print(f"best on {args.ref}: acoustic scale {found[0]['acoustic_scale']:g}, lm scale {found[0]['lm_scale']:g}, "
          f"blank penalty {found[0]['blank_penalty']:g}, {rate.upper()} {found[0][rate]:.2f} %")
