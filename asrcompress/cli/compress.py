"""Compress a model: choose a structure and a budget, write a model file to fine-tune or pack.

Example: asrcompress compress --model dense.safetensors --out exp/init.safetensors structure=svd size=0.25
What can be set is in conf/compress.yaml, conf/structure and conf/budget. With --calibrate, the model is run over some
held-out training speech: the report then shows the error of every layer's outputs, and a structure can make that small:
    asrcompress compress --calibrate data --model ... structure=svd structure.data_aware=true
It is also what the inputs of layers need to be int8, as on a device that multiplies integers. Where there is no speech,
--data-free makes features from the model itself. On either, --distil trains the result towards the model:
    asrcompress compress --model ... --data-free batchnorm --activations int8 --distil 200 \\
        structure=dense quantization=int4
With --target, each layer gets the structure and quantization with which the packed file takes at most so many bytes and
the posteriors move least; with --at-most, with which the held-out loss rises by at most so much (conf/target.yaml):
    asrcompress compress --target 1.2MB --calibrate data --model dense.safetensors --out small.packed
    asrcompress compress --at-most 1% --lang data/lang_phone --calibrate data --model ... --out small.packed
A model of Hugging Face's, Whisper or one for CTC such as wav2vec 2.0, comes from a folder or from the hub's cache:
    asrcompress compress --model hf:openai/whisper-tiny.en --calibrate data --out whisper.packed quantization=int4
"""

import argparse
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lhotse import MonoCut
    from torch import Tensor, nn

    from asrcompress.compression import LayerRecord


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="FILE",
                        help="model file or packed file to compress, or hf: and a folder or name of Hugging Face's")
    parser.add_argument("--out", required=True, metavar="FILE",
                        help="model file to write (.safetensors), or any other name for a packed file")
    parser.add_argument("--target", metavar="BYTES", help="of the packed file: 1200000, 900kB, 1.2MB, or 1/20 of the "
                        "dense model's")
    parser.add_argument("--at-most", metavar="PERCENT", help="how much the CTC loss of the calibration set may rise; "
                        "needs --lang")
    parser.add_argument("--lang", type=Path, help="lang folder of the model, for --at-most")
    parser.add_argument("--structures-only", action="store_true",
                        help="with --target: write the structures without the quantization, to be trained first")
    parser.add_argument("--fit-steps", action="store_true", help="with --target: change nothing but the steps of a "
                        "model that was trained with quantization epr, until its file has so many bytes")
    parser.add_argument("--choices", type=Path, metavar="FOLDER", help="with --target or --at-most: where the ways to "
                        "store each weight are kept, for further targets of this model (default: the folder of --out)")
    parser.add_argument("--plot", metavar="FILE", help="with --target or --at-most: a picture of what each layer got")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--calibrate", type=Path, metavar="DATA", help="folder of prepared sets to calibrate on")
    source.add_argument("--data-free", choices=("gaussian", "batchnorm"),
                        help="calibrate on noise, or on features that agree with the model's BatchNorm statistics")
    parser.add_argument("--calibrate-set", default="dev", metavar="SET",
                        help="its set to use, never a test set (default: dev, the held-out training speakers)")
    parser.add_argument("--calibrate-minutes", type=float, metavar="MINUTES", help="(default: 10; with --data-free 2)")
    parser.add_argument("--activations", choices=("int8",), help="also round the inputs of layers; needs calibration")
    parser.add_argument("--smooth", action="store_true",
                        help="before, even out the channels of these inputs; exact in float; needs --activations")
    parser.add_argument("--distil", type=int, default=0, metavar="STEPS",
                        help="steps of training towards the given model's posteriors on the calibration data")
    parser.add_argument("--distil-set", metavar="SET", help="train on this set instead; no transcripts are used")
    parser.add_argument("--distil-minutes", type=float, metavar="MINUTES", help="of it (default: 60)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides, e.g. size=0.25")


def run(args: argparse.Namespace) -> None:
    from asrcompress import recognisers
    from asrcompress.compression import Plan, activations, compress, quantization, save, smoothing
    from asrcompress.config import compose
    from asrcompress.options import require

    check_distillation(args)
    if args.target or args.at_most:
        to_bytes(args)
        return
    require(not (args.plot or args.lang or args.fit_steps or args.structures_only or args.choices),
            "--plot, --lang, --fit-steps, --structures-only and --choices: each goes with --target or --at-most")
    require(args.activations or not args.smooth, "--smooth is for inputs that are rounded; give --activations int8 too")
    plan = Plan.from_config(compose("compress", args.overrides))
    model = recognisers.load_model(args.model)
    batches = examples(args, model, plan.seed)
    small, report = compress(smoothing.smooth(model, batches) if args.smooth else model, plan,
                             calibration=batches or None)
    if args.activations:
        grids = activations.observe(small, batches)
        small = activations.apply(small, grids)
        print(f"activations {args.activations}: the inputs of {len(grids)} layers")
    if args.distil:
        small = distilled(args, small, model, batches)
    save(args.out, small)
    show(report, args.out)
    if quantizers := quantization.attached(small):
        values = sum(math.prod(one.shape) for one in quantizers.values())
        print(f"{plan.quantization}: {values:,} values of {len(quantizers)} tensors; coder {plan.coder}")


def to_bytes(args: argparse.Namespace) -> None:
    """The file of --target or --at-most."""
    from rich.progress import track

    from asrcompress import recognisers
    from asrcompress.compression import quantization, save
    from asrcompress.compression.budget.bytes import bytes_of
    from asrcompress.compression.choices import Ways
    from asrcompress.compression.fit_steps import fit_steps
    from asrcompress.compression.packed import writer
    from asrcompress.compression.parametrization import copy_model
    from asrcompress.compression.target import Table
    from asrcompress.config import compose
    from asrcompress.options import make, require

    require(not (args.target and args.at_most), "--target and --at-most are two questions; give one")
    require(bool(args.target) or not args.fit_steps, "--fit-steps needs --target")
    if args.fit_steps:
        require(not args.overrides, "--fit-steps chooses nothing; leave the overrides away")
        require(not (args.distil or args.activations or args.smooth or args.plot or args.structures_only),
                "--fit-steps changes nothing but steps; leave --distil, --activations, --smooth, --plot and "
                "--structures-only away")
    model = recognisers.load_model(args.model)
    whole = writer.length(quantization.materialize(copy_model(model)))
    target = bytes_of(args.target, whole) if args.target else 0
    tolerance = percent(args.at_most) if args.at_most else 0.0
    if args.fit_steps:
        save(args.out, fit_steps(model, target))
        return
    require(not (args.activations or args.smooth), "--target chooses what is stored; --activations goes without it")
    require(args.lang is not None or not args.at_most, "--at-most needs the lang folder of the model; give --lang")
    require(bool(args.calibrate or args.data_free), "--target and --at-most need something to run the model on; give "
            "--calibrate DATA, or --data-free batchnorm")
    require(args.calibrate is not None or not args.at_most, "--at-most needs speech; give --calibrate DATA")
    options = compose("target", args.overrides)
    require(not args.distil or "epr" in options["quantizations"], "--distil moves what --target chose, and the steps "
            "of epr then fit the file to its bytes; add epr, as quantizations=[int8,epr]")
    seed = options.pop("seed")
    args.calibrate_minutes = args.calibrate_minutes or 2
    loss = held_out_loss(args) if args.at_most else None
    table = Table(model, examples(args, model, seed), make(Ways, options, "target"), seed,
                  args.choices or Path(args.out).parent, lambda items, text: track(items, text))
    print(f"predicted and measured damage of {len(table.checked)} choices: rank correlation "
          f"{table.rank_correlation:.3f}")
    small, report = table.fit(target) if loss is None else table.within(tolerance, loss)
    if args.distil:
        taught = distilled(args, small, model, table.outputs.batches)
        small = fit_steps(taught, target or writer.length(small))
    save(args.out, quantization.materialize(copy_model(small)) if args.structures_only else small)
    show(report, args.out)
    size, predicted = writer.length(small), sum(row.damage or 0.0 for row in report)
    print(f"{args.out}: packed, it takes {size:,} bytes, 1/{whole / size:.3g} of the dense model; "
          f"divergence {table.outputs.divergence(small):.4g} nats a frame, {predicted:.4g} predicted")
    if args.plot:
        from asrcompress.report.layers import plot

        plot(report, Path(args.plot))


def check_distillation(args: argparse.Namespace) -> None:
    """Errors: UserError where options of --distil are given without it, or without speech."""
    from asrcompress.options import require

    require(bool(args.distil) or not (args.distil_set or args.distil_minutes),
            "--distil-set and --distil-minutes go with --distil STEPS")
    require(args.calibrate is not None or not args.distil_set, "--distil-set is a set of prepared speech; give the "
            "folder with --calibrate DATA")
    require(bool(args.distil_set) or not args.distil_minutes, "--distil-minutes are of a set; give --distil-set")


def distilled(args: argparse.Namespace, small: "nn.Module", model: "nn.Module",
              batches: "Sequence[Any]") -> "nn.Module":
    """The small model trained towards the whole one, as its kind of recogniser says how far they are apart."""
    from rich.progress import track

    from asrcompress import recognisers
    from asrcompress.compression import distil

    if args.distil_set:
        minutes = 60 if args.distil_minutes is None else args.distil_minutes
        batches = spoken(model, args.calibrate, args.distil_set, minutes, 0)
    if not recognisers.hears_waves(model):
        return distil.distil(small, model, batches, args.distil, track=track)

    def loss(student: Any, number: int) -> Any:
        return recognisers.of(student).distillation_loss(model, batches[number])

    return distil.distil(small, model, batches, args.distil, loss=loss, track=track)


def held_out_loss(args: argparse.Namespace) -> "Callable[[nn.Module], float]":
    """CTC loss of the whole calibration set."""
    from asrcompress.training.held_out import ctc_loss

    return ctc_loss(args.calibrate, args.calibrate_set, args.lang)


def percent(text: str) -> float:
    """0.01 of 1%. Errors: UserError."""
    from asrcompress.errors import UserError

    if not re.fullmatch(r"\d+(\.\d+)?\s*%", text.strip()):
        raise UserError(f"--at-most is '{text}'; it is percents, as 1%")
    return float(text.strip().removesuffix("%")) / 100


def examples(args: argparse.Namespace, model: "nn.Module", seed: int) -> "list[Any]":
    """What to calibrate on: speech, synthetic features, or nothing.

    Errors: UserError where an option needs examples and none are given.
    """
    from asrcompress import recognisers
    from asrcompress.compression import synthetic
    from asrcompress.errors import UserError

    minutes = args.calibrate_minutes
    if args.calibrate:
        most = 5 if recognisers.hears_waves(model) else 10
        return spoken(model, args.calibrate, args.calibrate_set, most if minutes is None else minutes, seed)
    if args.data_free:
        return synthetic.examples(model, args.data_free, 2 if minutes is None else minutes, seed)
    if args.activations or args.distil:
        asked = "--activations" if args.activations else "--distil"
        raise UserError(f"{asked} needs something to run the model on; give --calibrate DATA, or --data-free batchnorm")
    return []


def spoken(model: "nn.Module", data: Path, name: str, minutes: float, seed: int) -> "list[Any]":
    """Batches of the model's arguments, of speech of a prepared set. Errors: those of `chosen` and `speech`."""
    from asrcompress import recognisers
    from asrcompress.runtimes.base import waves_of_cuts

    if recognisers.hears_waves(model):
        return list(recognisers.of(model).calibration(waves_of_cuts(chosen(data, name, minutes, seed))))
    return list(speech(data, name, minutes, seed))


def chosen(data: Path, name: str, minutes: float, seed: int) -> "list[MonoCut]":
    """Cuts of `minutes` of a prepared set (all of it where it is shorter), drawn by the seed.

    Errors: UserError where the set is missing or empty.
    """
    from lhotse import load_manifest_lazy

    from asrcompress.data.batches import drawn
    from asrcompress.errors import UserError
    from asrcompress.files import require_file

    cuts = drawn(load_manifest_lazy(require_file(data / f"{name}.jsonl.gz", "the set to calibrate on")), minutes, seed)
    if not cuts:
        raise UserError(f"{data}/{name}.jsonl.gz and --calibrate-minutes {minutes:g} give no utterance to calibrate on")
    return cuts


def speech(data: Path, name: str, minutes: float, seed: int) -> "Iterator[tuple[Tensor, Tensor]]":
    """x (N, T, 80), x_lens (N,) of the cuts that are `chosen`. Errors: UserError where their features are missing."""
    from lhotse import CutSet
    from lhotse.dataset.collation import collate_features

    from asrcompress.decoding.posteriors import batches_of
    from asrcompress.errors import UserError

    for batch in batches_of(CutSet.from_cuts(chosen(data, name, minutes, seed)), seconds=100):
        try:
            x, lens = collate_features(CutSet.from_cuts(batch))
        except FileNotFoundError as error:
            missing = str(error).split("'")[1]
            raise UserError(f"{data}/{name}.jsonl.gz says that features are in {missing}, where there is no file; run "
                            "this in the folder in which the set was prepared") from None
        yield x, lens.long()


def show(report: "list[LayerRecord]", path: str) -> None:
    """Print one row per weight, and the sum."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=path, title_justify="left")
    for column in ("layer", "shape", "structure"):
        table.add_column(column, overflow="fold")
    calibrated = any(row.output_error is not None for row in report)
    budget = any(row.bytes is not None for row in report)
    for column in ("rank", "parameters", "of dense", "error", *(["of outputs"] if calibrated else []),
                   *(["quantization", "bytes", "damage"] if budget else [])):
        table.add_column(column, justify="right")
    for row in report:
        kind = f"{row.structure} ({row.note})" if row.note else row.structure
        table.add_row(row.path, " x ".join(map(str, row.shape)), kind, str(row.rank or ""), f"{row.after:,}",
                      f"{row.after / row.before:.3f}", f"{row.error:.4f}",
                      *([] if row.output_error is None else [f"{row.output_error:.4f}"]),
                      *([] if row.bytes is None else [row.quantization, f"{row.bytes:,}", f"{row.damage:.2g}"]))
    before, after = sum(row.before for row in report), sum(row.after for row in report)
    table.add_section()
    table.add_row("all weights", "", "", "", f"{after:,}", f"{after / max(1, before):.3f}", "")
    Console(width=None if sys.stdout.isatty() else 120).print(table)
