"""Write a packed model as a file for devices: model.onnx and tokens.txt, which sherpa-onnx takes as they are.

    asrcompress export exp/svd-0.25/model.packed --lang lang --out device/svd-0.25 --data data --set dev-clean-2
    asrcompress export exp/dense/model.packed --lang lang --out device/int8 --data data --set dev-clean-2 \\
        --precision int8-dynamic --sensitivity-set dev --max-loss 0.2

Before anything is written, torch and onnxruntime have to agree frame by frame: on utterances of --data and --set, or
without them on random features. For quantized files that is a share of frames with the same best token, and a small
divergence.
"""

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="a packed file, or a model file")
    parser.add_argument("--format", choices=("onnx",), default="onnx")
    parser.add_argument("--lang", type=Path, required=True, help="the lang folder, for its tokens.txt")
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    parser.add_argument("--batch1", action="store_true", help="one utterance a call: without masks, faster and smaller")
    parser.add_argument("--keep-small", action="store_true",
                        help="hashed weights are made again from their pools at load, instead of now")
    parser.add_argument("--precision", default="float32",
                        choices=("float32", "float16", "int8-dynamic", "int8-static", "int4", "codebook"),
                        help="how weights are stored; int8 is also multiplied as int8, other products are float32")
    parser.add_argument("--entries", type=int, default=256, help="of a codebook: 17 to 256 take a byte, 16 half of one")
    parser.add_argument("--calibrate-set", metavar="SET", help="training speech of --data, for int8-static")
    parser.add_argument("--calibrate-minutes", type=float, default=2.0, metavar="MINUTES")
    parser.add_argument("--keep-float", nargs="+", default=[], metavar="LAYER",
                        help="layers that are not quantized, as layers.0.conv or a glob")
    parser.add_argument("--sensitivity-set", metavar="SET",
                        help="held-out training speech of --data: layers that cost too much there are not quantized")
    parser.add_argument("--max-loss", type=float, default=0.2,
                        help="percentage points of token error that quantizing may cost on that set")
    parser.add_argument("--acoustic-scale", type=float, default=1.0, metavar="S",
                        help="that of the search over a graph, as sherpa-onnx has none: log_probs are multiplied by it")
    parser.add_argument("--beam", type=float, default=16.0, help="the --device-beam that the graph was made for")
    parser.add_argument("--data", type=Path, help="folder of prepared sets")
    parser.add_argument("--set", help="the prepared set of the parity check")
    parser.add_argument("--tolerance", type=float,
                        help="largest difference of log-probabilities: 0.001, or 0.2 for float16, unless given; of "
                             "quantized files the share of frames with another best token, and mean divergence in "
                             "nats: 0.05 for int8 and 0.15 for the others")


def run(args: argparse.Namespace) -> None:
    from dataclasses import replace

    from asrcompress import compression
    from asrcompress.compression import activations
    from asrcompress.compression.folding import fold
    from asrcompress.errors import UserError
    from asrcompress.runtimes import onnx, parity

    check(args)
    model: Any = fold(compression.load(args.model))
    if activations.grids(model):
        raise UserError(f"{args.model} rounds the inputs of its layers, and a device file does that in its own way; "
                        "compress without --activations, and export with --precision int8-static")
    tokens = args.lang / "tokens.txt"
    onnx.check_tokens(tokens, model.config["vocab"])
    factor = args.acoustic_scale * onnx.BEAM / args.beam if args.beam > 0 else 0.0
    options = chosen(args, model, onnx.Options(args.batch1, args.keep_small, args.precision, factor,
                                               tuple(args.keep_float), entries=args.entries))
    proto = onnx.convert(model, options)
    batches = parity.real_batches(args.data, args.set, args.batch1) if args.set else parity.random_batches(args.batch1)
    tolerance = args.tolerance or parity.TOLERANCES[args.precision]
    if args.precision in onnx.FLOAT:
        error = parity.check(model, proto, batches, tolerance, factor)
        agreement = f"log-probabilities equal within {error:.1e}"
    else:
        other, divergence = parity.check_quantised(model, proto, batches, tolerance, factor)
        agreement = f"the best token of {100 * (1 - other):.2f} % of the frames, divergence {divergence:.1e} nats,"
    data = proto.SerializeToString()
    onnx.write(args.out, data, tokens)
    print(f"{args.out / 'model.onnx'}: {len(data):,} bytes, {agreement} on {args.set or 'random features'}")
    if args.keep_small:
        rebuilt = onnx.convert(model, replace(options, keep_small=False))
        print(f"without --keep-small it would take {rebuilt.ByteSize():,} bytes")


def check(args: argparse.Namespace) -> None:
    """Options that belong together."""
    from asrcompress.errors import UserError

    sets = [name for name in (args.set, args.calibrate_set, args.sensitivity_set) if name is not None]
    if (args.data is None) != (not sets):
        raise UserError("--data and --set belong together: the folder, and the set in it to check with (or "
                        "--calibrate-set, or --sensitivity-set)")
    if (args.calibrate_set is not None) != (args.precision == "int8-static"):
        raise UserError("--calibrate-set belongs to --precision int8-static: its ranges come from training speech")
    if args.calibrate_minutes <= 0:
        raise UserError("--calibrate-minutes has to be above 0")
    if args.sensitivity_set is not None and args.precision in ("float32", "float16"):
        raise UserError(f"nothing is quantized at precision {args.precision}, so there is no sensitivity to find")


def chosen(args: argparse.Namespace, model: Any, options: Any) -> Any:
    """The options with calibrated ranges, and with what the sensitivity leaves in float."""
    from dataclasses import replace

    if not args.calibrate_set and not args.sensitivity_set:
        return options
    from asrcompress.runtimes import parity, sensitivity

    if args.calibrate_set:
        speech = parity.utterances(args.data, args.calibrate_set, args.calibrate_minutes)
        options = replace(options, ranges=sensitivity.ranges(model, options, speech.values()))
    if args.sensitivity_set:
        held_out = sensitivity.HeldOut(model, options, args.data, args.sensitivity_set, args.lang)
        keep, lines = sensitivity.leave_out(held_out, args.max_loss)
        print("\n".join(lines))
        options = replace(options, keep_float=keep)
    return options
