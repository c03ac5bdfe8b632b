"""The table of results.jsonl: on the terminal, as RESULTS.md, as CSV and as a plot, and as a page to explore.

  asrcompress report --rows results.jsonl --out . --note "dev-clean-2 is a stand-in for mini LibriSpeech"
  asrcompress report --rows results.jsonl --html results.html --exp exp
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=Path, nargs="+", required=True, help="results.jsonl (one or more)")
    parser.add_argument("--out", type=Path, help="folder for RESULTS.md, table.csv, wer_vs_bytes.png, device.csv")
    parser.add_argument("--html", type=Path, metavar="FILE", help="one page to sort, filter and compare models")
    parser.add_argument("--exp", type=Path, metavar="DIR", help="with --html: the folder of the models, for the bytes "
                        "of their files and the texts of their decodings")
    parser.add_argument("--title", default="Results")
    parser.add_argument("--note", default="", help="a statement about the test sets, printed under the title")
    parser.add_argument("--reference", type=Path, metavar="FILE", help="CSV of figures published elsewhere: system, "
                        "parameters, search, test_set, wer, source")
    parser.add_argument("--search", help="which search the plot shows; by default the one that most lines "
                        "have, and of several the last in the rows")


def run(args: argparse.Namespace) -> None:
    from rich.console import Console

    from asrcompress.options import require
    from asrcompress.report import device, html, results_md, rows, table

    require(bool(args.html) or not args.exp, "--exp is what --html reads; give --html FILE too")
    merged = rows.read_all(args.rows)
    if args.out:
        results_md.write(merged, args.out, args.note, args.title, args.search, args.reference)
    if args.html:
        html.write(merged, args.html, args.title, args.note, args.exp)
    console = Console()
    if not console.is_terminal:
        console.width = 200  # in a log, a line of the table is a line
    for name in table.test_sets(merged):
        console.print(table.rich_table(table.pivot(merged, name), name))
    for name in device.test_sets(merged):
        console.print(device.rich_table(merged, name))
    if args.note:
        print(args.note)
