"""Seconds of audio that training gets through in a second, beside the bare loop of the same model in the same run.

Run: python benchmarks/training.py --data data --lang data/lang_phone [--seconds 60] [model=tdnn criterion=lfmmi ...]
     python benchmarks/training.py --synthetic      (random features and words, for a machine without a corpus)
     python benchmarks/training.py ... structure=svd size=0.25 schedule=scratch  (how much faster a small one is)
The program is all of it: lightning, loader, augmentation, criterion, as `asrcompress train` runs them. The bare loop is
forward, criterion, backward, clipping and AdamW on one random batch of the same size; it runs before and after. Beside
a model that is compressed from its start stands the bare loop of the dense one, in turns with its own.
"""

import argparse
import copy
import json
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lhotse import CutSet, Features, LilcomChunkyWriter, MonoCut, SupervisionSegment

from asrcompress import models
from asrcompress.config import compose
from asrcompress.data.batches import load_cuts
from asrcompress.lang import lexicon as lexicons
from asrcompress.lang.tokens import read_symbols
from asrcompress.training import criteria, schedules
from asrcompress.training.train import fit

UTTERANCE, LABELS_PER_SECOND, TOKENS = 10.0, 12, 40  # of the random batch: seconds, labels a second, tokens


def synthetic(folder: Path, utterances: int = 400) -> CutSet:
    """Cuts of 4 to 16 seconds with random features; their words are T1, T2, ..., one token each."""
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
    return CutSet.from_cuts(cuts)


def program(model: models.AcousticModel, criterion: torch.nn.Module, cuts: CutSet, encode: lexicons.Encoder,
            options: dict[str, Any], seconds: float) -> float:
    """Seconds of audio a second of the training program."""
    options = options | {"epochs": 10**6, "trainer": options["trainer"] | {"max_time": timedelta(seconds=seconds)}}
    with tempfile.TemporaryDirectory() as folder:
        fit(model, criterion, cuts, cuts.subset(first=2), encode, options, Path(folder))
        return json.loads((Path(folder) / "train.json").read_text())["audio_seconds_per_second"]


def bare_loop(model: models.AcousticModel, criterion: torch.nn.Module, options: dict[str, Any],
              seconds: float) -> float:
    """Seconds of audio a second of the bare loop."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, criterion = model.to(device).train(), criterion.to(device).train()
    count, frames = max(1, int(options["batch_seconds"] / UTTERANCE)), int(100 * UTTERANCE)
    labels = int(LABELS_PER_SECOND * UTTERANCE)
    x, lens = torch.randn(count, frames, 80, device=device), torch.full((count,), frames, device=device)
    targets, target_lens = (torch.randint(1, TOKENS, (count, labels), device=device),
                            torch.full((count,), labels, device=device))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=options["precision"] == "bf16-mixed"):
            log_probs, out_lens = model(x, lens)
        criterion(log_probs, out_lens, targets, target_lens)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), options["gradient_clip"])
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    for _ in range(3):
        step()
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        step()
        steps += 1
    return steps * count * UTTERANCE / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of prepared sets")
    parser.add_argument("--lang", type=Path)
    parser.add_argument("--synthetic", action="store_true", help="random features instead of --data and --lang")
    parser.add_argument("--seconds", type=float, default=60, help="time for the program, and for the bare loop")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides of conf/train.yaml: model=tdnnf ...")
    args = parser.parse_args()
    if not args.synthetic and not (args.data and args.lang):
        parser.error("give --data and --lang, or --synthetic")
    config = compose("train", args.overrides)
    options = config["training"] | {"seed": config["seed"], "ctc_epochs": 0}
    with tempfile.TemporaryDirectory() as folder:
        if args.synthetic:
            symbols = {"<blk>": 0} | {f"T{i}": i for i in range(1, TOKENS)}
            encode = lexicons.Encoder({word: [[word]] for word in symbols}, symbols)
            cuts = synthetic(Path(folder))
        else:
            symbols = read_symbols(args.lang / "tokens.txt")
            encode = lexicons.Encoder(lexicons.read(args.lang / "lexicon.txt"), symbols)
            cuts = load_cuts(args.data, config["train_sets"], encode, options["max_duration"])
        model = models.build(config["model"] | {"vocab": max(TOKENS, len(symbols))})
        targets = [encode(cut.supervisions[0].text) for cut in cuts]
        criterion = criteria.build(**config["criterion"], vocab=max(TOKENS, len(symbols)), targets=targets)
        dense, callbacks = copy.deepcopy(model), schedules.build(config, options)
        for callback in callbacks:
            callback.begin(model)
        looped = [model, dense] if callbacks else [model]
        before = [bare_loop(one, criterion, options, args.seconds / 2) for one in looped]
        ours = program(model, criterion, cuts, encode, options, args.seconds)
        after = [bare_loop(one, criterion, options, args.seconds / 2) for one in looped]
        bare, *others = ((a + b) / 2 for a, b in zip(before, after, strict=True))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{torch.get_num_threads()} threads, {options['precision']}, {parameters / 1e6:.1f} M parameters, "
          f"batches of {options['batch_seconds']} s; seconds of audio a second:")
    print(f"  whole program {ours:7.0f}\n  bare loop     {bare:7.0f}\n  ratio         {ours / bare:7.2f}")
    for other in others:
        print(f"  dense model   {other:7.0f}\n  times as fast {bare / other:7.2f}")


if __name__ == "__main__":
    main()
