"""Packed files to be given to others, each in a folder with a model card and checksums.

  asrcompress release budget-20 epr-2 --rows results.jsonl --exp exp --lang data/lang_phone --out released
  asrcompress release int8 --rows results.jsonl --lang data/lang_20k --arpa lm/small.arpa.gz --out released

A folder has the packed file, the tokens that --lang names, README.md in the form of the Hugging Face hub, with error
rates, intervals, commands and where the bytes are, and SHA256SUMS.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME", help="models of --exp that have rows")
    parser.add_argument("--rows", type=Path, nargs="+", required=True, help="results.jsonl (one or more)")
    parser.add_argument("--exp", type=Path, default=Path("exp"), help="folder of the models (default: exp)")
    parser.add_argument("--lang", type=Path, help="lang folder of the models, where they need one")
    parser.add_argument("--arpa", type=Path, help="with --lang: a language model for words, put into OUT/lang with it")
    parser.add_argument("--license", default="apache-2.0", help="as the hub names it (default: apache-2.0)")
    parser.add_argument("--out", type=Path, required=True, help="gets a folder for each model")


def run(args: argparse.Namespace) -> None:
    from asrcompress.options import require
    from asrcompress.report import card, rows

    require(bool(args.lang) or not args.arpa, "--arpa needs --lang: words are made of its tokens")
    found = rows.read_all(args.rows)
    if args.arpa:
        card.words(args.out, args.lang, args.arpa)
    for name in args.names:
        folder = card.release(name, found, args.exp, args.out, args.lang, args.license, args.arpa)
        print(f"{folder}: {(folder / card.MODEL).stat().st_size:,} bytes, its card and checksums")
