"""Weights of 8 or 4 bits and activations of 8, calibrated without data and with it, side by side.

  python benchmarks/data_free.py --model exp/dense/model.safetensors --data data --lang data/lang_phone --out exp

For each source of calibration data (noise, features of BatchNorm statistics, speech of the training speakers): how far
it is from the model's BatchNorm statistics, the ranges of the layers' inputs, and of the packed files the KL to the
float model and the greedy token error, on speech that nothing was calibrated on. A source with a + is the row before it
after `--distil` steps towards the float model. OUT gets a folder for each, as the recipe's stage 6 leaves one, so that
with `--out exp` its stage 7 decodes them: `./run.sh --stage 7 --stop-stage 7 --decode "w8a8-speech-mse ..."`.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kaldialign
import torch
from torch import Tensor

from asrcompress.cli.compress import speech
from asrcompress.compression import Plan, activations, compress, distil, loading, packed, synthetic
from asrcompress.data.batches import eval_loader
from asrcompress.data.utterances import load_cuts
from asrcompress.decoding.greedy import best_tokens
from asrcompress.errors import UserError
from asrcompress.lang import lexicon

Batches = list[tuple[Tensor, Tensor]]
WRITTEN = {"w8a8": "int8", "w4a8": "int4"}
COMMAND = shlex.join(sys.argv[1:])


def sources(model: Any, args: argparse.Namespace) -> Iterator[tuple[str, Batches]]:
    for name in ("gaussian", "batchnorm"):
        started = time.process_time()
        batches = synthetic.examples(model, name, args.minutes, seed=0)
        print(f"{name}: {args.minutes:g} minutes of features made in {time.process_time() - started:.0f} CPU seconds",
              flush=True)
        yield name, batches
    yield "speech", list(speech(args.data, args.calibrate_set, args.minutes, 0))


@torch.no_grad()
def distance(model: Any, batches: Batches) -> tuple[float, float]:
    """From the statistics of the training, a batch at a time, averaged; and the mean of the highest posterior."""
    away, best, frames = 0.0, 0.0, 0
    for x, x_lens in batches:
        with synthetic.Statistics(model) as seen:
            log_probs, lens = model(x, x_lens)
        away += float(seen.divergence())
        inside = torch.arange(log_probs.shape[1]) < lens[:, None]
        best, frames = best + float(log_probs.amax(2)[inside].exp().sum()), frames + int(lens.sum())
    return away / len(batches), best / frames


class Judge:
    """KL to the float model per frame, and the token error of the greedy search, on a set."""

    def __init__(self, model: Any, args: argparse.Namespace) -> None:
        _, encode = lexicon.of_lang(args.lang)
        self.batches = list(eval_loader(load_cuts(args.data, [args.set], encode), encode))
        with torch.inference_mode():
            self.wanted = [model(batch["x"], batch["x_lens"])[0] for batch in self.batches]

    @torch.inference_mode()
    def __call__(self, model: Any) -> tuple[float, float]:
        away, frames, errors, tokens = 0.0, 0, 0, 0
        for batch, wanted in zip(self.batches, self.wanted, strict=True):
            log_probs, lens = model(batch["x"], batch["x_lens"])
            away += float(distil.divergence(wanted, log_probs, lens)) * int(lens.sum())
            frames += int(lens.sum())
            for row, length, target, count in zip(log_probs, lens, batch["targets"], batch["target_lens"], strict=True):
                reference = target[:count].tolist()
                errors += kaldialign.edit_distance(reference, best_tokens(row[:length].numpy()))["total"]
                tokens += len(reference)
        return away / frames, 100 * errors / tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a trained model file, with its BatchNorms")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--lang", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", default="dev", help="to measure on, never calibrated on")
    parser.add_argument("--calibrate-set", default="train-clean-5")
    parser.add_argument("--minutes", type=float, default=2, help="of each source (default: 2)")
    parser.add_argument("--ranges", nargs="+", choices=("minmax", "mse"), default=["mse"])
    parser.add_argument("--distil", type=int, default=200, metavar="STEPS")
    parser.add_argument("--distil-on", nargs="*", choices=("gaussian", "batchnorm", "speech"), default=["batchnorm"])
    args = parser.parse_args()
    model: Any = loading.load(args.model)
    found = dict(sources(model, args))
    print("\n| source | from the BatchNorm statistics | mean of the best posterior |\n|---|---|---|")
    for name, batches in found.items():
        print("| {} | {:.3f} | {:.3f} |".format(name, *distance(model, batches)), flush=True)
    grids = {name: activations.observe(model, batches) for name, batches in found.items()}
    print(f"\n| range of the input of | {' | '.join(found)} |\n|---|{'---|' * len(found)}")
    for path in grids["speech"]:
        print(f"| {path} | {' | '.join(f'{one[path].low:.2f} to {one[path].high:.2f}' for one in grids.values())} |")
    judge = Judge(model, args)
    print("\n| model | calibrated on | range | KL, nats a frame | token error % |\n|---|---|---|---|---|")
    print("| float | | | {:.4f} | {:.2f} |".format(*judge(model)), flush=True)
    for bits, name in WRITTEN.items():
        small, _ = compress(model, Plan("dense", None, quantization=name))
        print("| {} with float activations | | | {:.4f} | {:.2f} |".format(bits[:2], *judge(small)), flush=True)
        for source, batches in found.items():
            for how in args.ranges:
                one = activations.apply(small, activations.observe(small, batches, how))
                report(judge, args.out, bits, source, how, one)
            if source in args.distil_on:
                report(judge, args.out, bits, f"{source}+", how, distil.distil(one, model, batches, args.distil))


def report(judge: Judge, out: Path, bits: str, source: str, how: str, model: Any) -> None:
    """A row of the packed file, which is what is measured."""
    name = f"{bits}-{source}-{how}"
    path = out / name / "model.packed"
    path.parent.mkdir(parents=True, exist_ok=True)
    packed.save(path, model)
    row = {"name": name, "model": model.config["model"], "structure": "dense",
           "quantization": WRITTEN[bits], "coder": "raw", "when": "after", "seed": 0,
           "command": f"python benchmarks/data_free.py {COMMAND}"}
    (out / name / "row").write_text("".join(f"{key}={value}\n" for key, value in row.items()))
    (out / name / ".done").touch()
    print("| {} | {} | {} | {:.4f} | {:.2f} |".format(bits, source, how, *judge(packed.load(path))), flush=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"{error}") from None
