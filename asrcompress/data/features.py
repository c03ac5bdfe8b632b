"""Log-mel filterbanks: lhotse's `Fbank` at its defaults (80 mel, 20 to -400 Hz, no dither), as sherpa-onnx has them."""

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from lhotse import CutSet, Fbank, LilcomChunkyWriter, MonoCut
from rich.progress import track

from asrcompress.data.copies import origin


def _extract(storage: Path, cuts: list[MonoCut]) -> tuple[list[MonoCut], list[str]]:
    """Compute and store the features of `cuts`: those that worked, and a sentence for each that did not."""
    import torch

    torch.set_num_threads(1)
    done, failed = [], []
    with LilcomChunkyWriter(storage) as writer:
        for cut in cuts:
            try:
                done.append(cut.compute_and_store_features(extractor=Fbank(), storage=writer))
            except Exception as error:  # whatever the audio decoder raises: the utterance is named and left out
                failed.append(f"{origin(cut)} has audio that cannot be decoded ({type(error).__name__}); left out")
    return done, failed


def extract(cuts: Iterable[MonoCut], storage: Path, jobs: int, warn: Callable[[str], None] = print,
            label: str = "features") -> CutSet:
    """The cuts with lilcom-compressed features in the folder `storage`, computed in `jobs` processes."""
    storage.mkdir(parents=True, exist_ok=True)
    listed = list(cuts)
    size = min(500, -(-len(listed) // jobs))
    parts = [listed[start:start + size] for start in range(0, len(listed), size)]
    names = [storage / f"feats-{i:04d}" for i in range(len(parts))]
    done: list[MonoCut] = []
    said: set[str] = set()  # every speed copy of an utterance fails alike
    with ProcessPoolExecutor(jobs) as pool:
        results = pool.map(_extract, names, parts)
        for cuts_done, failed in track(results, total=len(parts), description=label):
            done.extend(cuts_done)
            for sentence in failed:
                if sentence not in said:
                    warn(sentence)
                said.add(sentence)
    return CutSet.from_cuts(done)
