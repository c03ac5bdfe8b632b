"""Log-mel filterbanks: lhotse's `Fbank` at its defaults (80 mel, 20 to -400 Hz, no dither), as sherpa-onnx has them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

from lhotse import Fbank, LilcomChunkyWriter, MonoCut

from asrcompress.data.copies import origin
from asrcompress.processes import die_with_parent


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


def extract(parts: Iterable[list[MonoCut]], storage: Path, jobs: int,
            warn: Callable[[str], None] = print) -> Iterator[list[MonoCut]]:
    """Each part's cuts with lilcom-compressed features, which are in an archive of their own in the folder `storage`.

    Parts are taken as `jobs` processes get to them, and come back in their order: few are in memory.
    """
    storage.mkdir(parents=True, exist_ok=True)
    said: set[str] = set()  # every speed copy of an utterance fails alike
    running: deque[Future[tuple[list[MonoCut], list[str]]]] = deque()

    def first() -> list[MonoCut]:
        done, failed = running.popleft().result()
        for sentence in failed:
            if sentence not in said:
                warn(sentence)
            said.add(sentence)
        return done

    with ProcessPoolExecutor(jobs, initializer=die_with_parent) as pool:
        for number, part in enumerate(parts):
            running.append(pool.submit(_extract, storage / f"feats-{number:04d}", part))
            if len(running) > 2 * jobs:
                yield first()
        while running:
            yield first()
