"""Compress a recogniser at several levels and evaluate each: bytes of the file that was loaded again, WER, a row.

    asrcompress levels compress hf:openai/whisper-tiny.en --data data --sets "dev-clean-2" --exp exp \\
        --levels "int8=quantization=int8 coder=range" "eighth=--target 1/8"
    asrcompress levels decode (the same)
    asrcompress levels device (the same) --only int8 --precision int8-dynamic
A level is NAME= and words of `asrcompress compress`; --calibrate DATA is added where they need speech. `device` writes
files for sherpa-onnx and decodes with them. What is done is skipped; where it was done otherwise, the command stops and
says so (--redo makes it again). A sweep that was cut off goes on with the same command.
"""

import argparse
from pathlib import Path

from asrcompress.cli.transcribe import add_recogniser, recogniser_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stage", choices=("compress", "decode", "device"))
    parser.add_argument("model", help="a packed file, a model file, or hf: and a folder or name of Hugging Face's")
    parser.add_argument("--levels", nargs="*", default=[], metavar="NAME=WORDS", help="beside the dense model")
    parser.add_argument("--data", type=Path, required=True, help="folder of prepared sets")
    parser.add_argument("--sets", required=True, help="test sets, parted by spaces")
    parser.add_argument("--exp", type=Path, default=Path("exp"), help="a folder for each level goes here")
    parser.add_argument("--precision", default="float32", help="of device files: float32 or int8-dynamic")
    parser.add_argument("--only", metavar="NAME", help="this level alone")
    parser.add_argument("--redo", action="store_true", help="make again what was made with other options")
    parser.add_argument("--command", default="", help="what result rows say")
    add_recogniser(parser)


def run(args: argparse.Namespace) -> None:
    from asrcompress.options import require
    from asrcompress.recipe import levels

    chosen = levels.parse(args.levels)
    if args.only:
        require(args.only in [level.name for level in chosen], f"--only {args.only}: there is no such level")
    sweep = levels.Sweep(args.model, args.data, tuple(args.sets.split()), args.exp,
                         tuple(recogniser_options(args).items()), args.command)
    require(bool(sweep.sets), "--sets names no test set")
    for level in chosen:
        if args.only in (None, level.name):
            if args.stage == "compress":
                levels.compress(sweep, level, args.redo)
            elif args.stage == "device":
                print(levels.device(sweep, level, args.precision, args.redo), flush=True)
            else:
                print(levels.decode(sweep, level, args.redo), flush=True)
