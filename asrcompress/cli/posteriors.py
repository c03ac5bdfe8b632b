"""Run a model file, a packed file or a device file over a prepared set, into a posterior archive.

    asrcompress posteriors --model exp/dense/model.packed --data data --set dev-clean-2 --out dev-clean-2.post
    asrcompress posteriors --model device/model.onnx --data data --set dev-clean-2 --out dev-clean-2.post
"""

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, help="a packed file, a model file, or an ONNX file")
    parser.add_argument("--data", type=Path, required=True, help="folder of prepared sets")
    parser.add_argument("--set", required=True)
    parser.add_argument("--out", type=Path, required=True)


def run(args: argparse.Namespace) -> None:
    from lhotse import load_manifest

    from asrcompress import compression
    from asrcompress.decoding import posteriors
    from asrcompress.files import require_file

    model: Any
    if args.model.suffix == ".onnx":
        from asrcompress.runtimes import onnxruntime

        model = onnxruntime.load(args.model)
    else:
        model = compression.load(args.model)
    cuts = load_manifest(require_file(args.data / f"{args.set}.jsonl.gz", "the prepared set"))
    rtf = posteriors.write(model, cuts, args.out, 0 if getattr(model, "batch1", False) else 200)
    print(f"{args.out}: {len(cuts)} utterances, RTF of the network {rtf:.4f}")
