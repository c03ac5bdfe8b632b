"""Manifests of cuts without audio or features."""

import gzip
import json
from pathlib import Path

import numpy as np

from asrcompress.lang.lexicon import Encoder

ENCODE = Encoder({f"W{i}": [[str(i % 7)]] for i in range(50)}, {str(i): i + 1 for i in range(7)})


def write(folder: Path, name: str, count: int, part: int = 10) -> None:
    """The set `name` of `count` utterances of 1 to 20 seconds at three speeds, speed after speed in each part."""
    rng = np.random.default_rng(len(name) + count)
    seconds, words = rng.uniform(1, 20, count), rng.integers(0, 50, (count, 4))
    with gzip.open(folder / f"{name}.jsonl.gz", "wt") as stream:
        for first in range(0, count, part):
            for speed in (0.9, 1.0, 1.1):
                for i in range(first, min(count, first + part)):
                    utterance = f"{name}-{i:06d}"
                    copy = utterance if speed == 1 else f"{utterance}_sp{speed}"
                    span = {"start": 0.0, "duration": seconds[i] / speed, "channel": 0}
                    said = {"id": copy, "recording_id": copy, **span, "text": " ".join(f"W{word}" for word in words[i]),
                            "custom": {"origin": utterance}}
                    cut = {"id": f"{copy}-0", **span, "supervisions": [said], "type": "MonoCut"}
                    stream.write(json.dumps(cut) + "\n")
