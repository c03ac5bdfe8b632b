"""Run a model file or a packed file over a prepared set, into a posterior archive.

    asrcompress posteriors --model exp/dense/model.packed --data data --set dev-clean-2 --out dev-clean-2.post
"""

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, help="a packed file, or a model file")
    parser.add_argument("--data", type=Path, required=True, help="folder of prepared sets")
    parser.add_argument("--set", required=True)
    parser.add_argument("--out", type=Path, required=True)


def run(args: argparse.Namespace) -> None:
    from lhotse import load_manifest

    from asrcompress import compression
    from asrcompress.decoding import posteriors
    from asrcompress.files import existing

    model: Any = compression.load(args.model)
    cuts = load_manifest(existing(args.data / f"{args.set}.jsonl.gz", "the prepared set"))
    rtf = posteriors.write(model, cuts, args.out)
    print(f"{args.out}: {len(cuts)} utterances, RTF of the network {rtf:.4f}")
