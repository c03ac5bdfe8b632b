"""From a corpus to what training and decoding read: `SUBSET.jsonl.gz` (cuts with features) and `SUBSET.text`."""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from lhotse import CutSet

from asrcompress.data import features
from asrcompress.data.copies import origin, speed_copies
from asrcompress.errors import UserError
from asrcompress.files import atomic
from asrcompress.lang import text

logging.getLogger("lhotse").setLevel(logging.ERROR)


def hold_out(cuts: CutSet, minutes: float, seed: int = 0) -> tuple[CutSet, CutSet]:
    """Split off whole speakers, in an order that only their names and the seed decide, until `minutes` are reached.

    Errors: UserError where that is no speaker or all of them.
    """
    spoken: dict[str, float] = defaultdict(float)
    for cut in cuts:
        spoken[cut.supervisions[0].speaker] += cut.duration / 60
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
    return (cuts.filter(lambda c: c.supervisions[0].speaker not in held).to_eager(),
            cuts.filter(lambda c: c.supervisions[0].speaker in held).to_eager())


def store(cuts: CutSet, name: str, out: Path, speeds: Sequence[float], jobs: int, warn: Callable[[str], None]) -> None:
    """Compute features at every speed and write the manifest, last, so that it stands only when all is there.

    Errors: UserError where no utterance has audio.
    """
    copies = speed_copies(cuts, speeds)
    done = features.extract(copies, out / "fbank" / name, jobs, warn, label=f"features of {name}")
    if not done:
        raise UserError(f"no utterance of {name} has audio that can be decoded; repair the corpus")
    plain = {origin(cut): cut.supervisions[0].text for cut in done}
    text.write(out / f"{name}.text", plain)
    with atomic(out / f"{name}.jsonl.gz") as temporary:
        renamed = temporary.with_name(f"{temporary.name}.jsonl.gz")  # lhotse goes by the suffix
        done.to_file(renamed)
        renamed.rename(temporary)
    hours = sum(cut.duration for cut in cuts) / 3600
    print(f"{name}: {len(plain)} utterances, {hours:.2f} h, {len(copies) - len(done)} copies left out", flush=True)


def prepare(read: Callable[[Path, str], CutSet], corpus: Path, train: Sequence[str], test: Sequence[str], out: Path, *,
            speeds: Sequence[float] = (0.9, 1.0, 1.1), held_out_minutes: float = 15, jobs: int = 2,
            warn: Callable[[str], None] = print) -> None:
    """Every subset once; the held-out set `dev` is made of whole speakers of the first training subset."""
    for name in [*train, *test]:
        first = [name] == list(train[:1])
        if (out / f"{name}.jsonl.gz").exists() and (not first or (out / "dev.jsonl.gz").exists()):
            continue
        cuts = read(corpus, name)
        if first:
            cuts, dev = hold_out(cuts, held_out_minutes)
            store(dev, "dev", out, (1.0,), jobs, warn)
        store(cuts, name, out, speeds if name in train else (1.0,), jobs, warn)
