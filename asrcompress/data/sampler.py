"""Which utterances make a batch: of like duration, out of a window that moves through the manifests."""

from collections.abc import Iterator

import numpy as np
from lhotse import CutSet
from torch.utils.data import Sampler

from asrcompress.data.utterances import Numbers, Utterances, cut_of

WINDOW = 20_000  # utterances among which batches are made; the lines of at most about so many are in memory
SPREAD = 0.05  # durations are taken to be longer by up to this much, so that a batch has other neighbours each time


class BucketSampler(Sampler[CutSet]):
    """The batches of one of `world_size` ranks in one epoch: the same for the same seed, and each utterance once.

    The whole epoch is planned from durations alone, so that a rank reads the lines of its own batches and no others.
    Its batches come in the order of the manifests, but for a shuffle of each window; sets are interleaved. At a step
    the ranks have batches of like duration, and all ranks have as many: where the last step has too few, some are
    halved, and single utterances come twice.
    """

    def __init__(self, utterances: Utterances, batch_seconds: float, seed: int, fraction: float = 1.0, rank: int = 0,
                 world_size: int = 1) -> None:
        self.utterances, self.batch_seconds, self.seed, self.fraction = utterances, batch_seconds, seed, fraction
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[CutSet]:
        rng = np.random.default_rng(self.seed)
        stream = interleaved(self.utterances.one_speed_each(rng, self.fraction), self.utterances.source, rng)
        plan = steps(stream, self.utterances.durations, self.batch_seconds, self.world_size, rng)
        mine = [step[self.rank] for step in plan]
        own = stream[np.isin(stream, np.concatenate(mine))]
        lines, held = zip(own.tolist(), self.utterances.read(own), strict=True), dict[int, bytes]()
        for batch in mine:
            wanted = batch.tolist()
            while not held.keys() >= set(wanted):
                held.update([next(lines)])
            yield CutSet.from_cuts(cut_of(held.pop(number)) for number in wanted)


def interleaved(numbers: Numbers, source: Numbers, rng: np.random.Generator) -> Numbers:
    """Sorted numbers of cuts (N,), those of each set in their order, with the sets mixed evenly at random."""
    keys = rng.random(len(numbers))
    keys = keys[np.lexsort((keys, source[numbers]))]  # ascending in each set
    return numbers[np.argsort(keys)]


def steps(stream: Numbers, durations: np.ndarray, batch_seconds: float, world_size: int,
          rng: np.random.Generator) -> Iterator[list[Numbers]]:
    """For each step the batches (n,) of all ranks, window after window; what is left of one goes into the next.

    stream: the numbers of an epoch's cuts (N,) in the order of reading; durations (C,): seconds of all cuts.
    """
    left, start = stream[:0], 0
    while start < len(stream):
        # The first window has any length, so that its borders lie elsewhere in every epoch.
        end = start + WINDOW if start else int(rng.integers(WINDOW // 2, WINDOW + 1))
        window, start = np.concatenate([left, stream[start:end]]), end
        found = batches(window, durations, batch_seconds, rng)
        if end >= len(stream):
            found = shared(found, world_size)
        whole = len(found) - len(found) % world_size
        left = np.concatenate([stream[:0], *found[whole:]])
        for first in rng.permutation(np.arange(0, whole, world_size)):
            yield found[first:first + world_size]


def batches(window: Numbers, durations: np.ndarray, batch_seconds: float, rng: np.random.Generator) -> list[Numbers]:
    """Batches (n,) of at most `batch_seconds` with padding counted, or one utterance, from short to long.

    window: numbers of cuts (W,); durations (C,): seconds of all cuts.
    """
    window = window[np.argsort(durations[window] * rng.uniform(1, 1 + SPREAD, len(window)))]
    borders, longest = [0], 0.0
    for i, duration in enumerate(durations[window].tolist()):
        longest = max(longest, duration)
        if i > borders[-1] and (i + 1 - borders[-1]) * longest > batch_seconds:
            borders.append(i)
            longest = duration
    return np.split(window, borders[1:])


def shared(found: list[Numbers], world_size: int) -> list[Numbers]:
    """So many batches that every rank has as many: the fullest of the last step are halved, single ones repeated."""
    whole = len(found) - len(found) % world_size
    last = found[whole:]
    while last and len(last) < world_size:
        last.sort(key=len)
        full = last.pop()
        last += [full[::2], full[1::2]] if len(full) > 1 else [full, full]
    return found[:whole] + last
