"""From a corpus to what training and decoding read: `SUBSET.jsonl.gz` (cuts with features) and `SUBSET.text`."""

import gzip
import hashlib
import json
import logging
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from lhotse import CutSet
from lhotse.cut import Cut
from rich.progress import track

from asrcompress.data import features
from asrcompress.data.copies import origin, speed_copies
from asrcompress.data.utterances import cut_of, lines
from asrcompress.errors import UserError
from asrcompress.files import atomic
from asrcompress.lang import text
from asrcompress.options import require

logging.getLogger("lhotse").setLevel(logging.ERROR)

ARCHIVE = 500  # cuts in a file of features


def _speaker(cut: Cut) -> Any:
    return cut.supervisions[0].speaker


def hold_out(cuts: CutSet, minutes: float, seed: int = 0) -> tuple[CutSet, CutSet]:
    """Split off whole speakers, in an order that only their names and the seed decide, until `minutes` are reached.

    Errors: UserError where that is no speaker or all of them.
    """
    spoken: dict[str, float] = defaultdict(float)
    for cut in cuts:
        spoken[_speaker(cut)] += cut.duration / 60
    order = sorted(spoken, key=lambda speaker: hashlib.sha256(f"{seed} {speaker}".encode()).hexdigest())
    held: set[str] = set()
    for speaker in order:
        if sum(spoken[s] for s in held) >= minutes:
            break
        held.add(speaker)
    if not held:
        raise UserError("without held-out speakers there is no development set; choose a larger --held-out-minutes")
    if len(held) == len(spoken):
        raise UserError(f"holding out {minutes} minutes would take all {len(spoken)} speakers of the first training "
                        "set; choose a smaller --held-out-minutes")
    return (cuts.filter(lambda cut: _speaker(cut) not in held).to_eager(),
            cuts.filter(lambda cut: _speaker(cut) in held).to_eager())


def store(cuts: CutSet, name: str, out: Path, speeds: Sequence[float], jobs: int, warn: Callable[[str], None],
          shuffle: bool = False) -> None:
    """Compute features at every speed and write the manifest, which stands only when all is there.

    All speeds of some utterances are in one archive, and such parts follow one another in the manifest. A training
    goes through both in that order, so `shuffle` orders the utterances at random. Errors: UserError where no utterance
    has audio.
    """
    listed = list(cuts)
    if shuffle:
        random.Random(0).shuffle(listed)
    size = max(1, min(ARCHIVE // len(speeds), -(-len(listed) // jobs)))
    parts = [listed[start:start + size] for start in range(0, len(listed), size)]
    copies = (speed_copies(CutSet.from_cuts(part), speeds) for part in parts)
    plain: dict[str, str] = {}
    written = 0
    with atomic(out / f"{name}.jsonl.gz") as temporary:
        with gzip.open(temporary, "wt", encoding="utf-8") as manifest:
            done = features.extract(copies, out / "fbank" / name, jobs, warn)
            for cut in chain.from_iterable(track(done, total=len(parts), description=f"features of {name}")):
                manifest.write(json.dumps(cut.to_dict(), ensure_ascii=False) + "\n")
                plain[origin(cut)] = cut.supervisions[0].text
                written += 1
        if not plain:
            raise UserError(f"no utterance of {name} has audio that can be decoded; repair the corpus")
        text.write(out / f"{name}.text", plain)
    hours = sum(cut.duration for cut in listed) / 3600
    left_out = len(speeds) * len(listed) - written
    print(f"{name}: {len(plain)} utterances, {hours:.2f} h, {left_out} copies left out", flush=True)


def check_roles(train: Sequence[str], test: Sequence[str]) -> None:
    """Errors: UserError for a set called `dev`, and for one to train on and to test on."""
    require("dev" not in [*train, *test], "a set of the corpus cannot be called dev, as the speakers held out of the "
            "first training set are; rename its folder, and give the new name")
    for name in train:
        require(name not in test, f"{name} is among --train-sets and among --test-sets; take it out of one of them")


def _others(cuts: CutSet, held: set[str], name: str) -> CutSet:
    """What is not spoken by those who were held out of the first training set."""
    left = cuts.filter(lambda cut: _speaker(cut) not in held).to_eager()
    if len(left) < len(cuts):
        print(f"{name}: {len(cuts) - len(left)} utterances of speakers of the held-out set are left out", flush=True)
    return left


def prepare(read: Callable[[Path, str], CutSet], corpus: Path, train: Sequence[str], test: Sequence[str], out: Path, *,
            speeds: Sequence[float] = (0.9, 1.0, 1.1), held_out_minutes: float = 15, jobs: int = 2,
            warn: Callable[[str], None] = print) -> None:
    """Every subset once; the held-out set `dev` is made of whole speakers of the first training subset, who are in no
    other training set.

    Errors: those of `check_roles`, and UserError for a subset that was prepared in another role.
    """
    check_roles(train, test)
    for name in [*train, *test]:
        first, manifest = [name] == list(train[:1]), out / f"{name}.jsonl.gz"
        if manifest.exists() and (not first or (out / "dev.jsonl.gz").exists()):
            copies = any(origin(cut) != cut.supervisions[0].id for cut in map(cut_of, lines(manifest)))
            require(copies == (name in train and any(speed != 1 for speed in speeds)), f"{manifest} has "
                    f"{'speed copies' if copies else 'one speed'}, and a {'training' if name in train else 'test'} set "
                    f"has {'one speed' if copies else 'speed copies'}; remove the file, and it is prepared again")
            continue
        cuts = read(corpus, name)
        if first:
            cuts, dev = hold_out(cuts, held_out_minutes)
            store(dev, "dev", out, (1.0,), jobs, warn)
        elif name in train:
            cuts = _others(cuts, {_speaker(cut_of(line)) for line in lines(out / "dev.jsonl.gz")}, name)
        store(cuts, name, out, speeds if name in train else (1.0,), jobs, warn, shuffle=name in train)
