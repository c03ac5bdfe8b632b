"""Batches for training: cuts by duration in buckets, collated, encoded, augmented."""

import random
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from lhotse import CutSet
from lhotse.dataset import DynamicCutSampler
from lhotse.dataset.collation import collate_features
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, Sampler

from asrcompress.data import augment
from asrcompress.data.sampler import BucketSampler
from asrcompress.data.utterances import Utterances
from asrcompress.lang.lexicon import Encoder

Batch = dict[str, Any]


def drawn(cuts: Iterable[Any], minutes: float, seed: int) -> list[Any]:
    """Cuts of so many minutes, or all of them where those are fewer, drawn by the seed.

    `cuts` is gone through twice and need not be in memory: only what is drawn is kept.
    """
    durations = [cut.duration for cut in cuts]
    left, chosen, seconds = list(range(len(durations))), dict[int, Any](), 0.0
    random.Random(seed).shuffle(left)
    while left and seconds < 60 * minutes:
        number = left.pop()
        chosen[number], seconds = None, seconds + durations[number]
    for number, cut in enumerate(cuts):
        if number in chosen:
            chosen[number] = cut
    return list(chosen.values())


class Cuts(Dataset[Batch]):
    """lhotse's map from a CutSet (one batch) to tensors: x (N, T, 80), x_lens, targets (N, U), target_lens.

    `clean` is x before augmentation, `ids` the ids of the cuts: a speed copy has one of its own. With `views` above 1
    the batch comes so many times, one after the other, each time with an augmentation of its own.

    The generator of the augmentation is seeded by (seed, the batch's ids): it does not depend on the order of work.
    """

    def __init__(self, encode: Encoder, augmentation: Mapping[str, Any] | None, seed: int, epoch: int,
                 views: int = 1) -> None:
        self.encode, self.augmentation, self.seed, self.epoch, self.views = encode, augmentation, seed, epoch, views

    def __getitem__(self, cuts: CutSet) -> Batch:
        clean, lens = collate_features(cuts)
        lens, ids, views = lens.long(), [cut.id for cut in cuts], self.views
        generator = torch.Generator().manual_seed(hash_seed(self.seed, self.epoch, *ids))
        targets = [torch.tensor(self.encode(cut.supervisions[0].text)) for cut in cuts]
        return {"x": torch.cat([self._augment(clean, lens, generator) for _ in range(views)]),
                "clean": clean.repeat(views, 1, 1), "x_lens": lens.repeat(views), "ids": ids * views,
                "targets": pad_sequence(targets * views, batch_first=True),
                "target_lens": torch.tensor([len(target) for target in targets * views])}

    def _augment(self, x: Tensor, lens: Tensor, generator: torch.Generator) -> Tensor:
        if not self.augmentation:
            return x
        options = self.augmentation
        if options.get("warp"):
            x = augment.warp_frequency(x, options["warp"], generator)
        if options.get("noise"):
            x = augment.add_noise(x, lens, options["noise"], tuple(options["snr"]), generator)
        return augment.spec_augment(x, lens, generator, **options.get("spec_augment", {}))


def hash_seed(*parts: object) -> int:
    """A 63-bit seed of some values, the same in every process."""
    import hashlib

    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little") >> 1


class SkipFirst(Sampler[CutSet]):
    """A batch sampler without its first `skip` batches: how training goes on in the middle of an epoch."""

    def __init__(self, sampler: Any, skip: int) -> None:
        self.sampler, self.skip = sampler, skip

    def __iter__(self) -> Iterator[CutSet]:
        for i, batch in enumerate(self.sampler):
            if i >= self.skip:
                yield batch


def train_loader(utterances: Utterances, encode: Encoder, *, batch_seconds: float,
                 augmentation: Mapping[str, Any] | None, seed: int, epoch: int, workers: int,
                 epoch_fraction: float = 1.0, rank: int = 0, world_size: int = 1, skip: int = 0,
                 views: int = 1) -> DataLoader:
    """The batches of one epoch; the same for the same (seed, epoch). Each of `world_size` ranks gets its own part.

    An epoch has every utterance once, at a speed drawn anew each epoch; with an `epoch_fraction` below 1 about that
    much of them, drawn anew as well. `batch_seconds` counts every one of the `views` of an utterance.
    """
    sampler = BucketSampler(utterances, batch_seconds / views, hash_seed(seed, epoch, "batches"), epoch_fraction, rank,
                            world_size)
    data = Cuts(encode, augmentation, seed, epoch, views)
    return DataLoader(data, sampler=SkipFirst(sampler, skip), batch_size=None, num_workers=workers)


def seconds_of_epoch(utterances: Utterances, seed: int, epoch_fraction: float = 1.0) -> float:
    """The seconds of audio in the first epoch, those of all ranks; other epochs have about as many."""
    rng = np.random.default_rng(hash_seed(seed, 0, "batches"))
    return float(utterances.durations[utterances.one_speed_each(rng, epoch_fraction)].sum())


def eval_loader(cuts: CutSet, encode: Encoder, batch_seconds: float = 200, rank: int = 0,
                world_size: int = 1) -> DataLoader:
    """Every cut once, longest first, without augmentation. Each of `world_size` ranks gets its own part.

    Where there are fewer cuts than ranks, each rank gets all of them, so that none has nothing to do.
    """
    ordered = sorted(cuts, key=lambda cut: -cut.duration)
    ordered = CutSet.from_cuts(ordered[rank::world_size] if len(ordered) >= world_size else ordered)
    with warnings.catch_warnings():  # that the set is in memory: development sets are small
        warnings.filterwarnings("ignore", "You are using DynamicCutSampler with an eagerly read CutSet")
        sampler = DynamicCutSampler(ordered, max_duration=batch_seconds, rank=0, world_size=1)
    return DataLoader(Cuts(encode, None, 0, 0), sampler=sampler, batch_size=None)
