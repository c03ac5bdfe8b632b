"""Seconds of audio that training gets through in a second, beside the bare loop of the same model in the same run.

Run: python benchmarks/training.py --data data --lang data/lang_phone [--seconds 60] [model=tdnn criterion=lfmmi ...]
     python benchmarks/training.py --synthetic      (random features and words, for a machine without a corpus)
     python benchmarks/training.py --synthetic --precisions auto,bf16-mixed,32-true   (does auto take the faster one?)
     python benchmarks/training.py ... structure=svd size=0.25 schedule=scratch  (how much faster a small one is)
The program is all of it: lightning, loader, augmentation, criterion, as `asrcompress train` runs them. The bare loop is
forward, criterion, backward, clipping and AdamW on one random batch of the same size; it runs before and after. Beside
a model that is compressed from its start stands the bare loop of the dense one, in turns with its own. --precisions
times the bare loop alone in each, in two rounds; ONEDNN_MAX_CPU_ISA=AVX2 makes a processor one without bfloat16.
"""

import argparse
import copy
import json
import tempfile
import time
from dataclasses import replace
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lhotse import CutSet, Features, LilcomChunkyWriter, MonoCut, SupervisionSegment

from asrcompress import models, precision
from asrcompress.config import compose
from asrcompress.data.utterances import Targets, Utterances
from asrcompress.lang import lexicon as lexicons
from asrcompress.options import make
from asrcompress.training import criteria, schedules
from asrcompress.training.options import TrainingOptions
from asrcompress.training.train import fit

UTTERANCE, LABELS_PER_SECOND, TOKENS = 10.0, 12, 40  # of the random batch: seconds, labels a second, tokens


def synthetic(folder: Path, utterances: int = 400) -> None:
    """The set `train`: cuts of 4 to 16 seconds with random features; their words are T1, T2, ..., one token each."""
    rng = np.random.default_rng(0)
    cuts = []
    with LilcomChunkyWriter(folder / "feats") as writer:
        for i in range(utterances):
            frames = int(rng.integers(400, 1600))
            key = writer.write(f"u{i}", rng.standard_normal((frames, 80), dtype=np.float32))
            words = " ".join(f"T{token}" for token in rng.integers(1, TOKENS, frames * LABELS_PER_SECOND // 100))
            span: dict[str, Any] = {"start": 0.0, "duration": frames / 100}
            stored = {"storage_type": writer.name, "storage_path": str(writer.storage_path), "storage_key": key}
            features = Features("fbank", frames, 80, 0.01, 16_000, **span, **stored, channels=0)
            said = SupervisionSegment(f"u{i}", f"u{i}", **span, text=words)
            cuts.append(MonoCut(f"u{i}", **span, channel=0, supervisions=[said], features=features))
    CutSet.from_cuts(cuts).to_file(folder / "train.jsonl.gz")


def program(model: models.AcousticModel, criterion: torch.nn.Module, utterances: Utterances, encode: lexicons.Encoder,
            options: TrainingOptions, seconds: float) -> float:
    """Seconds of audio a second of the training program."""
    options = replace(options, epochs=10**6)
    with tempfile.TemporaryDirectory() as folder:
        dev = CutSet.from_cuts(islice(utterances, 2))
        fit(model, criterion, utterances, dev, encode, options, 0, Path(folder), max_time=timedelta(seconds=seconds))
        return json.loads((Path(folder) / "train.json").read_text())["audio_seconds_per_second"]


def bare_loop(model: models.AcousticModel, criterion: torch.nn.Module, options: TrainingOptions,
              seconds: float) -> float:
    """Seconds of audio a second of the bare loop; at least one step."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, criterion = model.to(device).train(), criterion.to(device).train()
    count, frames = max(1, int(options.batch_seconds / UTTERANCE)), int(100 * UTTERANCE)
    labels = int(LABELS_PER_SECOND * UTTERANCE)
    x, lens = torch.randn(count, frames, 80, device=device), torch.full((count,), frames, device=device)
    targets, target_lens = (torch.randint(1, TOKENS, (count, labels), device=device),
                            torch.full((count,), labels, device=device))
    half = precision.resolve(options.precision, device) == "bf16-mixed"
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=half):
            log_probs, out_lens = model(x, lens)
        criterion(log_probs, out_lens, targets, target_lens)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), options.gradient_clip)
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    for _ in range(1 if seconds < 5 else 3):
        step()
    started, steps = time.perf_counter(), 0
    while not steps or time.perf_counter() - started < seconds:
        step()
        steps += 1
    return steps * count * UTTERANCE / (time.perf_counter() - started)


def precisions(names: list[str], model: models.AcousticModel, criterion: torch.nn.Module, options: TrainingOptions,
               seconds: float) -> None:
    """The bare loop in each precision, twice in turn."""
    print(f"{torch.get_num_threads()} threads, bfloat16 in hardware: {precision.has_bfloat16()}; seconds of audio a "
          "second:")
    rounds = [[bare_loop(model, criterion, replace(options, precision=name), seconds / 2) for name in names]
              for _ in range(2)]
    for name, *speeds in zip(names, *rounds, strict=True):
        print(f"  {name:<12}{sum(speeds) / 2:7.1f}   (it is {precision.resolve(name)}; rounds "
              f"{', '.join(f'{speed:.1f}' for speed in speeds)})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of prepared sets")
    parser.add_argument("--lang", type=Path)
    parser.add_argument("--synthetic", action="store_true", help="random features instead of --data and --lang")
    parser.add_argument("--seconds", type=float, default=60, help="time for the program, and for the bare loop")
    parser.add_argument("--precisions", help="only time the bare loop in each of these (separated by commas)")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides of conf/train.yaml: model=tdnnf ...")
    args = parser.parse_args()
    if not args.synthetic and not (args.data and args.lang):
        parser.error("give --data and --lang, or --synthetic")
    config = compose("train", args.overrides)
    options = replace(make(TrainingOptions, config["training"], "training"), ctc_epochs=0)
    with tempfile.TemporaryDirectory() as folder:
        if args.synthetic:
            symbols = {"<blk>": 0} | {f"T{i}": i for i in range(1, TOKENS)}
            encode = lexicons.Encoder({word: [[word]] for word in symbols}, symbols)
            synthetic(Path(folder))
            utterances = Utterances(Path(folder), ["train"], encode, options.max_duration)
        else:
            symbols, encode = lexicons.of_lang(args.lang)
            utterances = Utterances(args.data, config["train_sets"], encode, options.max_duration)
        model = models.build(config["model"] | {"vocab": max(TOKENS, len(symbols))})
        criterion = criteria.build(**config["criterion"], vocab=max(TOKENS, len(symbols)),
                                   targets=Targets(utterances, encode))
        if args.precisions:
            precisions(args.precisions.split(","), model, criterion, options, args.seconds)
            return
        dense, callbacks = copy.deepcopy(model), schedules.build(config, options)
        for callback in callbacks:
            callback.begin(model)
        looped = [model, dense] if callbacks else [model]
        before = [bare_loop(one, criterion, options, args.seconds / 2) for one in looped]
        ours = program(model, criterion, utterances, encode, options, args.seconds)
        after = [bare_loop(one, criterion, options, args.seconds / 2) for one in looped]
        bare, *others = ((a + b) / 2 for a, b in zip(before, after, strict=True))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{torch.get_num_threads()} threads, {precision.resolve(options.precision)}, {parameters / 1e6:.1f} M "
          f"parameters, batches of {options.batch_seconds:g} s; seconds of audio a second:")
    print(f"  whole program {ours:7.0f}\n  bare loop     {bare:7.0f}\n  ratio         {ours / bare:7.2f}")
    for other in others:
        print(f"  dense model   {other:7.0f}\n  times as fast {bare / other:7.2f}")


if __name__ == "__main__":
    main()
