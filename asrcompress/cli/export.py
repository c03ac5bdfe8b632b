"""Write a packed model as a file for devices: model.onnx and tokens.txt, which sherpa-onnx takes as they are.

    asrcompress export exp/svd-0.25/model.packed --lang lang --out device/svd-0.25 --data data --set dev-clean-2

Before anything is written, torch and onnxruntime have to agree frame by frame: on utterances of --data and --set, or
without them on random features.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="a packed file, or a model file")
    parser.add_argument("--format", choices=("onnx",), default="onnx")
    parser.add_argument("--lang", type=Path, required=True, help="the lang folder, for its tokens.txt")
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    parser.add_argument("--batch1", action="store_true", help="one utterance a call: without masks, faster and smaller")
    parser.add_argument("--keep-small", action="store_true",
                        help="hashed weights are made again from their pools at load, instead of now")
    parser.add_argument("--precision", choices=("float32", "float16"), default="float32",
                        help="how weights are stored; products are float32")
    parser.add_argument("--acoustic-scale", type=float, default=1.0, metavar="S",
                        help="that of the search over a graph, as sherpa-onnx has none: log_probs are multiplied by it")
    parser.add_argument("--beam", type=float, default=16.0, help="the --device-beam that the graph was made for")
    parser.add_argument("--data", type=Path, help="folder of prepared sets, for the parity check")
    parser.add_argument("--set", help="the prepared set")
    parser.add_argument("--tolerance", type=float,
                        help="largest difference of log-probabilities: 0.001, or 0.2 for float16, unless given")


def run(args: argparse.Namespace) -> None:
    from dataclasses import replace
    from typing import Any

    from asrcompress import compression
    from asrcompress.compression.folding import fold
    from asrcompress.errors import UserError
    from asrcompress.export import onnx, parity

    if (args.data is None) != (args.set is None):
        raise UserError("--data and --set belong together: the folder, and the set in it to check with")
    model: Any = fold(compression.load(args.model))
    tokens = args.lang / "tokens.txt"
    onnx.check_tokens(tokens, model.config["vocab"])
    factor = args.acoustic_scale * onnx.BEAM / args.beam if args.beam > 0 else 0.0
    options = onnx.Options(args.batch1, args.keep_small, args.precision, factor)
    proto = onnx.convert(model, options)
    batches = parity.real_batches(args.data, args.set, args.batch1) if args.data else parity.random_batches(args.batch1)
    tolerance = args.tolerance or parity.TOLERANCES[args.precision]
    error = parity.check(model, proto, batches, tolerance, factor)
    data = proto.SerializeToString()
    onnx.write(args.out, data, tokens)
    print(f"{args.out / 'model.onnx'}: {len(data):,} bytes, log-probabilities equal within {error:.1e} on "
          f"{args.set or 'random features'}")
    if args.keep_small:
        rebuilt = onnx.convert(model, replace(options, keep_small=False))
        print(f"without --keep-small it would take {rebuilt.ByteSize():,} bytes")
