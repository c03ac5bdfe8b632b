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
    parser.add_argument("--out", type=Path, help="a folder for score.json and align.txt, or a file X.json; with "
                        "--sweep for best.json")
    parser.add_argument("--rows", type=Path, help="results.jsonl, to add or replace this result's row")
    parser.add_argument("--row", action="append", default=[], metavar="KEY=VALUE", help="what the row says (repeat)")
    parser.add_argument("--packed", type=Path, help="the packed model that was decoded: its size in bytes")
    parser.add_argument("--dense-packed", type=Path, help="the dense model's packed file, for the ratio")
    parser.add_argument("--model-info", type=Path, help="what `asrcompress measure --json` said of the model")


def run(args: argparse.Namespace) -> None:
    from asrcompress.options import require

    of_row = bool(args.row or args.packed or args.dense_packed or args.model_info)
    require(not args.sweep or not (args.rows or of_row or args.dense_hyp), "--sweep chooses scales and makes no row; "
            "leave --dense-hyp, --rows, --row, --packed, --dense-packed and --model-info away")
    require(bool(args.rows) or not of_row, "--row, --packed, --dense-packed and --model-info say what a row holds; "
            "give --rows FILE too")
    if args.sweep:
        choose(args)
    else:
        score(args)


def score(args: argparse.Namespace) -> None:
    """Score one hypothesis file, print the rate, and write the details and the row. Errors: UserError from the row."""
    import sys

    from asrcompress.decoding import score as scoring
    from asrcompress.recipe.rows import of_files
    from asrcompress.report import rows

    row: dict[str, Any] = {}
    if args.rows:
        known = of_files(args.hyp, args.packed, args.dense_packed, args.model_info)
        row = rows.check({**known, **rows.parse(args.row)}, "--row")
    result = scoring.score_files(args.ref, args.hyp, args.dense_hyp, args.unit)
    if result.missing:
        print(f"{args.hyp}: {len(result.missing)} utterances of {args.ref} have no hypothesis (the first is "
              f"{result.missing[0]}); their words count as deletions", file=sys.stderr)
    if args.out:
        scoring.write(args.out, result)
    if args.rows:
        rows.put(args.rows, {**row, **result.row()})
    print(result.line())


def choose(args: argparse.Namespace) -> None:
    """Score every hypothesis file of a sweep, print the rates, and write the best scales to best.json."""
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
    out = args.out or args.sweep
    with atomic(out if out.suffix == ".json" else out / "best.json") as temporary:
        temporary.write_text(json.dumps(found[0]) + "\n", encoding="utf-8")
    print(f"best on {args.ref}: acoustic scale {found[0]['acoustic_scale']:g}, lm scale {found[0]['lm_scale']:g}, "
          f"blank penalty {found[0]['blank_penalty']:g}, {rate.upper()} {found[0][rate]:.2f} %")
