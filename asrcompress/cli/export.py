"""Write a packed model as a file for a device: model.onnx and tokens.txt, which sherpa-onnx takes as they are.

    asrcompress export exp/svd-0.25/model.packed --lang lang --out device/svd-0.25 --data data --set dev-clean-2
    asrcompress export exp/dense/model.packed --lang lang --out device/int8 --data data --set dev-clean-2 \\
        --precision int8-dynamic --sensitivity-set dev --max-loss 0.2
    asrcompress export whisper.packed --out device/whisper        encoder.onnx and decoder.onnx of a Whisper
    asrcompress export m.packed --runtime onnxruntime --inputs one.npz --out whisper.onnx     any torch model

Before anything is written, torch and the runtime have to agree: on utterances of --data and --set frame by frame, on
--inputs, or without either on random features. For quantized files that is a fraction of frames with the same best
token, and a small divergence.
"""

import argparse
from pathlib import Path
from typing import Any

BEAM = 16.0  # and default of asrcompress graph --device-beam


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="a packed file, or a model file")
    parser.add_argument("--runtime", default="sherpa-onnx", help="sherpa-onnx (ours, Whisper) or onnxruntime (any)")
    parser.add_argument("--lang", type=Path, help="the lang folder, for its tokens.txt; sherpa-onnx needs it")
    parser.add_argument("--out", type=Path, required=True, help="a folder; for onnxruntime a file")
    parser.add_argument("--inputs", type=Path, metavar="FILE.npz",
                        help="an array for each argument of forward, where the model does not know its own inputs")
    parser.add_argument("--exporter", choices=("torchscript", "dynamo"), default="torchscript",
                        help="of torch.onnx.export; dynamo needs onnxscript")
    parser.add_argument("--batch1", action="store_true", help="one utterance a call: without masks, faster and smaller")
    parser.add_argument("--keep-small", action="store_true",
                        help="hashed and tied weights are made again at load, from what layers share, instead of now")
    parser.add_argument("--precision", default="float32",
                        choices=("float32", "float16", "int8-dynamic", "int8-static", "int4", "codebook"),
                        help="how weights are stored; int8 is also multiplied as int8, other products are float32")
    parser.add_argument("--entries", type=int, default=256, help="of a codebook: 17 to 256 take a byte, 16 half of one")
    parser.add_argument("--reduce-range", action="store_true",
                        help="int8 weights of 7 bits, for x86 without VNNI, where sums of 8 bits saturate")
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
    parser.add_argument("--beam", type=float, default=BEAM, help="the --device-beam that the graph was made for")
    parser.add_argument("--max-seconds", type=float, metavar="S",
                        help="the longest utterance that the file is made for: 120 s for a Conformer, any for a TDNN")
    parser.add_argument("--data", type=Path, help="folder of prepared sets")
    parser.add_argument("--set", help="the prepared set of the parity check")
    parser.add_argument("--tolerance", type=float,
                        help="largest difference of log-probabilities: 0.001, or 0.2 for float16, unless given; of "
                             "quantized files the fraction of frames with another best token, and mean divergence in "
                             "nats: 0.05 for int8 and 0.15 for the others; of any other model the largest difference "
                             "of outputs, 0.0001")


def run(args: argparse.Namespace) -> None:
    from asrcompress import compression, recognisers

    check(args)
    model: Any = compression.load(args.model)
    if args.runtime != "sherpa-onnx":
        exported = any_model(args, model)
    elif recognisers.kind_of(model) == "whisper":
        exported = whisper_model(args, model)
    else:
        exported = speech_model(args, model)
    print(f"{exported.path}: {exported.size:,} bytes, {exported.agreement} on "
          f"{args.set or args.inputs or 'random features'}")


def any_model(args: argparse.Namespace, model: Any) -> Any:
    """One file, through torch.onnx.export or, of a TDNN or Conformer without --inputs, the hand-made graph."""
    from asrcompress.runtimes.export import export

    return export(model, args.out, args.inputs, runtime=args.runtime, exporter=args.exporter, tolerance=args.tolerance,
                  **given(args))


def whisper_model(args: argparse.Namespace, model: Any) -> Any:
    """encoder.onnx, decoder.onnx and tokens.txt for sherpa-onnx. Errors: UserError for an option of our models."""
    from asrcompress.errors import UserError
    from asrcompress.runtimes.export import export

    if args.lang or args.data:
        raise UserError("a Whisper knows its tokens and is compared on random features; leave --lang and --data away")
    return export(model, args.out, runtime=args.runtime, tolerance=args.tolerance, **given(args))


def speech_model(args: argparse.Namespace, model: Any) -> Any:
    """A folder for sherpa-onnx, checked on speech where there is some. Errors: UserError without --lang."""
    from dataclasses import asdict, replace

    from asrcompress.compression.folding import fold
    from asrcompress.errors import UserError
    from asrcompress.runtimes import sherpa_onnx
    from asrcompress.runtimes.export import export
    from asrcompress.runtimes.onnx_graph import acoustic, parity

    sherpa_onnx.check(model)
    if args.lang is None:
        raise UserError("sherpa-onnx needs the tokens of the model; give its lang folder as --lang")
    tokens = args.lang / "tokens.txt"
    acoustic.check_tokens(tokens, model.config["vocab"])
    model = fold(model)
    factor = args.acoustic_scale * sherpa_onnx.BEAM / args.beam if args.beam > 0 else 0.0
    options = replace(options_of(args), acoustic_scale=factor, ranges=calibrated(args, model))
    if args.sensitivity_set:
        options = replace(options, keep_float=left_out(args, model, options))
    batches = parity.real_batches(args.data, args.set, args.batch1) if args.set else None
    exported = export(model, args.out, batches, runtime=args.runtime, tokens=tokens, tolerance=args.tolerance,
                      **asdict(options))
    if args.keep_small:
        rebuilt = acoustic.convert(model, replace(options, keep_small=False))
        print(f"without --keep-small it would take {rebuilt.ByteSize():,} bytes")
    return exported


def check(args: argparse.Namespace) -> None:
    """Options that belong together. Errors: UserError."""
    from asrcompress import runtimes
    from asrcompress.errors import UserError

    runtimes.find(args.runtime)
    if args.lang is not None and args.runtime != "sherpa-onnx":
        raise UserError("--lang belongs to --runtime sherpa-onnx, which needs the tokens of the model")
    if args.beam != BEAM and args.runtime != "sherpa-onnx":
        raise UserError("--beam belongs to --runtime sherpa-onnx, which searches a graph")
    if args.exporter != "torchscript" and args.runtime == "sherpa-onnx":
        raise UserError("--exporter is for --runtime onnxruntime: what sherpa-onnx runs is made by hand")
    if args.inputs and args.runtime == "sherpa-onnx":
        raise UserError("--inputs is for --runtime onnxruntime: sherpa-onnx makes features itself; give --data and "
                        "--set")
    sets = [name for name in (args.set, args.calibrate_set, args.sensitivity_set) if name is not None]
    if sets and args.runtime != "sherpa-onnx":
        raise UserError("--set, --calibrate-set and --sensitivity-set are for --runtime sherpa-onnx; give --inputs")
    if (args.data is None) != (not sets):
        raise UserError("--data and --set belong together: the folder, and the set in it to check with (or "
                        "--calibrate-set, or --sensitivity-set)")
    if (args.calibrate_set is not None) != (args.precision == "int8-static"):
        raise UserError("--calibrate-set belongs to --precision int8-static: its ranges come from training speech")
    if args.calibrate_minutes <= 0:
        raise UserError("--calibrate-minutes has to be above 0")
    if args.sensitivity_set is not None and args.precision in ("float32", "float16"):
        raise UserError(f"nothing is quantized at precision {args.precision}, so there is no sensitivity to find")


def options_of(args: argparse.Namespace) -> Any:
    """The options of the hand-made graph. Errors: UserError for values that it does not take."""
    from asrcompress.runtimes.onnx_graph.options import Options

    return Options(args.batch1, args.keep_small, args.precision, args.acoustic_scale, tuple(args.keep_float),
                   entries=args.entries, reduce_range=args.reduce_range, max_seconds=args.max_seconds)


def given(args: argparse.Namespace) -> dict[str, Any]:
    """Those of `options_of` that are not the defaults. Errors: UserError."""
    from dataclasses import asdict

    from asrcompress.runtimes.onnx_graph.options import Options

    defaults = asdict(Options())
    return {name: value for name, value in asdict(options_of(args)).items() if value != defaults[name]}


def calibrated(args: argparse.Namespace, model: Any) -> Any:
    """The ranges of the inputs of products on --calibrate-set; None without one."""
    from asrcompress.runtimes.onnx_graph import parity, sensitivity
    from asrcompress.runtimes.onnx_graph.options import Options

    if not args.calibrate_set:
        return None
    speech = parity.utterances(args.data, args.calibrate_set, args.calibrate_minutes)
    return sensitivity.ranges(model, Options(args.batch1), speech.values())


def left_out(args: argparse.Namespace, model: Any, options: Any) -> tuple[str, ...]:
    """The products that stay float so that quantizing loses at most --max-loss on --sensitivity-set."""
    from asrcompress.runtimes.onnx_graph import sensitivity

    held_out = sensitivity.HeldOut(model, options, args.data, args.sensitivity_set, args.lang)
    keep, lines = sensitivity.leave_out(held_out, args.max_loss)
    print("\n".join(lines))
    return keep
