"""Size, multiply-adds, speed and memory of a packed model, or of a device file in its own runtime.

  asrcompress measure model.packed            a table, for reading
  asrcompress measure model.packed --json     one JSON object, for `asrcompress score --model-info`
  asrcompress measure device/svd-0.25 --against device/dense      a folder with model.onnx, timed in turns with another
  asrcompress measure device/svd-0.25 --runtime sherpa-onnx --graph graph/HLG.fst     features and search included
"""

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="a packed model, a device folder, or an ONNX file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--out", type=Path, help="write the JSON object to this file")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=20, help="length of the utterance that is timed")
    parser.add_argument("--inputs", type=Path, metavar="FILE.npz",
                        help="an array for each input of the model, where it is no model of speech features")
    parser.add_argument("--runtime", default="onnxruntime",
                        help="of a device file: onnxruntime, the network alone, or sherpa-onnx, which adds features "
                             "and search")
    parser.add_argument("--graph", type=Path, metavar="HLG.fst", help="sherpa-onnx loads it too")
    parser.add_argument("--against", type=Path, metavar="DENSE",
                        help="another device file, run in turns with this one: the ratio of their speeds")
    parser.add_argument("--here", action="store_true", help="in this process; by default a fresh one is started")


def run(args: argparse.Namespace) -> None:
    import json

    from asrcompress.errors import UserError
    from asrcompress.files import atomic

    if args.threads < 1 or args.seconds < 1:
        raise UserError("--threads and --seconds are 1 or more")
    found = measured(args)
    if args.out:
        with atomic(args.out) as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if args.json:
        print(json.dumps(found))
    else:
        for key, value in found.items():
            print(f"{key:>22}  {value:,}" if isinstance(value, int) else f"{key:>22}  {value}")


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """Measurements of a device file or a torch model, by name.

    Errors: UserError for options of a device file with a torch model.
    """
    from asrcompress.errors import UserError
    from asrcompress.measure import device, speed
    from asrcompress.runtimes.base import Timing

    if device.is_device_file(args.model):
        timing = Timing(args.threads, args.seconds, args.graph, args.against, args.inputs)
        return (device.here if args.here else device.measure)(args.model, args.runtime, timing)
    if args.graph or args.against or args.runtime != "onnxruntime":
        raise UserError(f"--runtime, --graph and --against are for device files, and {args.model} is none; "
                        "make one with `asrcompress export`")
    measure = speed.in_this_process if args.here else speed.in_fresh_process
    return measure(args.model, args.threads, args.seconds, args.inputs)
