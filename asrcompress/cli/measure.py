"""Size, multiply-adds, speed and memory of a packed model.

  asrcompress measure model.packed            a table, for reading
  asrcompress measure model.packed --json     one JSON object, for `asrcompress score --model-info`
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("packed", type=Path, help="a packed model")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--out", type=Path, help="write the JSON object to this file")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=20, help="length of the utterance that is timed")
    parser.add_argument("--here", action="store_true", help="in this process; by default a fresh one is started")


def run(args: argparse.Namespace) -> None:
    import json

    from asrcompress.errors import UserError
    from asrcompress.files import atomic
    from asrcompress.measure import speed

    if args.threads < 1 or args.seconds < 1:
        raise UserError("--threads and --seconds are 1 or more")
    measure = speed.in_this_process if args.here else speed.in_fresh_process
    found = measure(args.packed, args.threads, args.seconds)
    if args.out:
        with atomic(args.out) as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if args.json:
        print(json.dumps(found))
    else:
        for key, value in found.items():
            print(f"{key:>22}  {value:,}" if isinstance(value, int) else f"{key:>22}  {value}")
