"""What the data of a training costs at the size of LibriSpeech, without its audio: start-up, memory, time of an epoch.

Run: python benchmarks/data.py --folder DIR      (DIR gets the manifests, about 0.3 GB, where it has none)
     python benchmarks/data.py --folder DIR --scale 0.01     (another DIR: a hundredth of the utterances)
The three training sets of LibriSpeech have 281,241 utterances. Here each has its three speeds, a duration of 1.3 to 35
seconds, about 2.7 random words a second out of a lexicon of 200,000, and the features of all others of its length. The
manifests are like those that `asrcompress prepare` writes. What is measured is a fresh process that does what
`asrcompress train` does up to the first batch with its features, from a worker; then all batches of an epoch are made,
without features, as the one process of a training makes them and as rank 0 of 8 and of 64. Seconds are those since the
process began; beside them those of its processor (CPU), for a machine that does other things. Peak memory is resident
(RSS) and includes torch and the lexicon; that of the worker includes the pages that it shares with the process.
"""

import argparse
import gzip
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SETS = {"train-clean-100": 28_539, "train-clean-360": 104_014, "train-other-500": 148_688}
SPEEDS = (0.9, 1.0, 1.1)
PART = 170  # utterances whose copies share an archive
STEP = 0.25  # seconds: durations are multiples, so that few feature matrices serve all
WORDS, PHONES = 200_000, 39


def generate(folder: Path, scale: float) -> None:
    """Write the lang folder, the features and the manifests, one line after the other."""
    rng = np.random.default_rng(0)
    letters = rng.integers(0, 26, (WORDS, 12))
    lengths = rng.integers(3, 9, WORDS)
    words = ["".join(chr(65 + letter) for letter in row[:length]) + f"{i:X}"[-3:] for i, (row, length) in
             enumerate(zip(letters, lengths, strict=True))]
    lang = folder / "lang"
    lang.mkdir(parents=True, exist_ok=True)
    tokens = ["<blk>", *(f"P{i}" for i in range(1, PHONES + 1))]
    (lang / "tokens.txt").write_text("".join(f"{token} {i}\n" for i, token in enumerate(tokens)))
    phones = rng.integers(1, PHONES + 1, (WORDS, 9))
    (lang / "lexicon.txt").write_text("".join(
        f"{word} {' '.join(f'P{phone}' for phone in row[:length])}\n"
        for word, row, length in zip(words, phones, lengths, strict=True)))
    keys = _features(folder, rng)
    for name, count in SETS.items():
        temporary = folder / f"{name}.part"
        with gzip.open(temporary, "wt", compresslevel=1, encoding="utf-8") as stream:
            for line in _lines(name, max(PART, round(scale * count)), words, keys, folder, rng):
                stream.write(line)
        temporary.rename(folder / f"{name}.jsonl.gz")


def _features(folder: Path, rng: np.random.Generator) -> dict[int, str]:
    """Number of frames -> key in the one archive of all features."""
    from lhotse import LilcomChunkyWriter

    with LilcomChunkyWriter(folder / "feats") as writer:
        return {frames: writer.write(str(frames), rng.standard_normal((frames, 80), dtype=np.float32))
                for frames in range(round(100 * STEP), 4000, round(100 * STEP))}


def _lines(name: str, count: int, words: list[str], keys: dict[int, str], folder: Path,
           rng: np.random.Generator) -> Iterator[str]:
    """The cuts of a set: in parts, and there speed after speed, as `asrcompress prepare` has them."""
    for first in range(0, count, PART):
        size = min(PART, count - first)
        long = rng.random(size) < 0.7
        seconds = np.where(long, rng.normal(14.6, 1.5, size), rng.uniform(1.3, 12.0, size))
        seconds = np.where(rng.random(size) < 0.002, rng.uniform(20.0, 35.0, size), seconds).clip(1.3, 35.0)
        texts = [" ".join(words[min(WORDS, word) - 1] for word in rng.zipf(1.2, max(1, round(2.7 * length))))
                 for length in seconds]
        for speed in SPEEDS:
            for i in range(size):
                yield _line(f"{name}-{first + i:06d}", speed, seconds[i] / speed, texts[i], keys, folder)


def _line(name: str, speed: float, seconds: float, text: str, keys: dict[int, str], folder: Path) -> str:
    """One cut as lhotse writes it."""
    copy = name if speed == 1 else f"{name}_sp{speed}"
    duration = STEP * max(1, round(seconds / STEP))
    frames, span = round(100 * duration), {"start": 0.0, "duration": duration}
    said = {"id": copy, "recording_id": copy, **span, "channel": 0, "text": text, "language": "English",
            "speaker": name[-6:-3], "custom": {"origin": name}}
    features = {"type": "kaldi-fbank", "num_frames": frames, "num_features": 80, "frame_shift": 0.01,
                "sampling_rate": 16000, **span, "storage_type": "lilcom_chunky",
                "storage_path": str(folder / "feats.lca"), "storage_key": keys[frames], "channels": 0}
    source = {"type": "file", "channels": [0], "source": f"LibriSpeech/train/{name[-6:-3]}/{name}.flac"}
    recording = {"id": copy, "sources": [source], "sampling_rate": 16000, "num_samples": round(16000 * duration),
                 "duration": duration, "channel_ids": [0],
                 **({} if speed == 1 else {"transforms": [{"name": "Speed", "kwargs": {"factor": speed}}]})}
    return json.dumps({"id": f"{copy}-0", **span, "channel": 0, "supervisions": [said], "features": features,
                       "recording": recording, "type": "MonoCut"}) + "\n"


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds since `args.since` and of the processor at each step, what was counted, and the peak memory."""
    from asrcompress.data import batches
    from asrcompress.data.utterances import Targets, Utterances
    from asrcompress.lang import lexicon as lexicons
    from asrcompress.training import criteria

    found: dict[str, Any] = {}

    def note(name: str) -> None:
        found[name], found[f"{name}, CPU"] = time.time() - args.since, time.process_time()

    symbols, encode = lexicons.of_lang(args.folder / "lang")
    note("lexicon read")
    utterances = Utterances(args.folder, list(SETS), encode, 22.0)
    found["hours"] = batches.seconds_of_epoch(utterances, 0) / 3600
    note("manifests read")
    criteria.build("lfmmi", len(symbols), targets=Targets(utterances, encode))
    note("phone LM of LF-MMI estimated")
    options: dict[str, Any] = {"batch_seconds": args.batch_seconds, "augmentation": None, "seed": 0, "epoch": 0}
    iterator = iter(batches.train_loader(utterances, encode, workers=1, **options))
    next(iterator)
    note("first batch")
    del iterator  # its worker ends
    for ranks in (1, 8, 64):
        sampler: Any = batches.train_loader(utterances, encode, workers=0, world_size=ranks, **options).sampler
        began, cpu = time.time(), time.process_time()
        counts = [len(batch) for batch in sampler]
        found |= {f"epoch, rank 0 of {ranks}": time.time() - began,
                  f"epoch, rank 0 of {ranks}, CPU": time.process_time() - cpu,
                  f"batches of rank 0 of {ranks}": len(counts), f"utterances of rank 0 of {ranks}": sum(counts)}
    for name, who in (("process", resource.RUSAGE_SELF), ("worker", resource.RUSAGE_CHILDREN)):
        found[f"{name}, GB"] = resource.getrusage(who).ru_maxrss / 1e6
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="folder of the manifests, made where it has none")
    parser.add_argument("--scale", type=float, default=1.0, help="share of LibriSpeech's utterances to generate")
    parser.add_argument("--batch-seconds", type=float, default=60)
    parser.add_argument("--since", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.since:
        for name, value in measure(args).items():
            print(f"  {name:<36}{value:>12,.{0 if isinstance(value, int) else 2}f}")
        return
    if not all((args.folder / f"{name}.jsonl.gz").exists() for name in SETS):
        started = time.time()
        generate(args.folder, args.scale)
        print(f"generated in {time.time() - started:.0f} s", flush=True)
    subprocess.run([sys.executable, __file__, *sys.argv[1:], "--since", str(time.time())], check=True)


if __name__ == "__main__":
    main()
