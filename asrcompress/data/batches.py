"""Batches for training: cuts by duration in buckets, collated, encoded, augmented."""

import random
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lhotse import CutSet, load_manifest
from lhotse.dataset import DynamicBucketingSampler, DynamicCutSampler
from lhotse.dataset.collation import collate_features
from lhotse.dataset.sampling.base import CutSampler
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, Sampler

from asrcompress.data import augment
from asrcompress.data.copies import origin
from asrcompress.errors import UserError
from asrcompress.files import require_file
from asrcompress.lang.lexicon import Encoder

Batch = dict[str, Any]


def load_cuts(folder: Path, names: Sequence[str], encode: Encoder, max_duration: float | None = None) -> CutSet:
    """The cuts of some prepared sets, without words outside the lexicon and of at most `max_duration` seconds.

    What is left out is counted on the standard output. Errors: UserError where a set is missing, no cut is left, or an
    utterance comes twice.
    """
    cuts: dict[tuple[str, str], Any] = {}
    for name in names:
        for cut in load_manifest(require_file(folder / f"{name}.jsonl.gz", "the prepared set")):
            if cuts.setdefault((origin(cut), cut.supervisions[0].id), cut) is not cut:
                raise UserError(f"utterance {origin(cut)} of {folder / name}.jsonl.gz comes twice in "
                                f"{' '.join(names)}; name each set once, and give every utterance its own id")
    return _usable(list(cuts.values()), folder, names, encode, max_duration)


def _usable(cuts: list[Any], folder: Path, names: Sequence[str], encode: Encoder, max_duration: float | None) -> CutSet:
    """What `load_cuts` keeps of the cuts that it found."""
    kept = [cut for cut in cuts if not encode.unknown(cut.supervisions[0].text)]
    short = [cut for cut in kept if max_duration is None or cut.duration <= max_duration]
    if len(short) < len(cuts):
        limit = f" and {len(kept) - len(short)} are longer than {max_duration} s" if max_duration else ""
        print(f"{' '.join(names)}: of {len(cuts)} cuts {len(cuts) - len(kept)} have words outside the lexicon{limit}; "
              "left out", flush=True)
    if not short:
        raise UserError(f"no cut of {' '.join(names)} in {folder} can be used for training; check the lexicon")
    return CutSet.from_cuts(short)


def drawn(cuts: Iterable[Any], minutes: float, seed: int) -> list[Any]:
    """Cuts of so many minutes, or all of them where those are fewer, drawn by the seed."""
    left, chosen = list(cuts), list[Any]()
    random.Random(seed).shuffle(left)
    while left and sum(cut.duration for cut in chosen) < 60 * minutes:
        chosen.append(left.pop())
    return chosen


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


def _sampler(kind: type[CutSampler], cuts: CutSet, **options: Any) -> CutSampler:
    """A sampler of lhotse, without its warning that the set is in memory: it is on purpose, manifests are small."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are using Dynamic.*Sampler with an eagerly read CutSet")
        return kind(cuts, **options)


def transcripts(cuts: CutSet) -> dict[str, str]:
    """Utterance id -> its words, once for each utterance, however many speed copies `cuts` has of it."""
    return {origin(cut): cut.supervisions[0].text for cut in cuts}


def one_speed_each(cuts: CutSet, seed: int, epoch: int, epoch_fraction: float = 1.0) -> CutSet:
    """One of the speed copies of every utterance, drawn anew each epoch: an epoch is one pass over the speech.

    With an `epoch_fraction` below 1 it is one over about that much of it, drawn anew as well; at least one utterance.
    """
    copies: dict[str, list[Any]] = {}
    for cut in cuts:
        copies.setdefault(origin(cut), []).append(cut)
    if epoch_fraction < 1.0:
        drawn = sorted(copies, key=lambda name: hash_seed(seed, epoch, "share", name))
        copies = {name: copies[name] for name in drawn[:max(1, round(epoch_fraction * len(copies)))]}
    return CutSet.from_cuts(group[hash_seed(seed, epoch, name) % len(group)] for name, group in copies.items())


def train_loader(cuts: CutSet, encode: Encoder, *, batch_seconds: float, augmentation: Mapping[str, Any] | None,
                 seed: int, epoch: int, workers: int, epoch_fraction: float = 1.0, buckets: int = 20, rank: int = 0,
                 world_size: int = 1, skip: int = 0, views: int = 1) -> DataLoader:
    """The batches of one epoch; the same for the same (seed, epoch). Each of `world_size` ranks gets its own part.

    `batch_seconds` counts every one of the `views` of an utterance.
    """
    chosen = one_speed_each(cuts, seed, epoch, epoch_fraction)
    sampler = _sampler(DynamicBucketingSampler, chosen, max_duration=batch_seconds / views,
                       num_buckets=min(buckets, len(chosen)), shuffle=True, drop_last=False, seed=seed + epoch,
                       rank=rank, world_size=world_size, buffer_size=20_000)
    data = Cuts(encode, augmentation, seed, epoch, views)
    return DataLoader(data, sampler=SkipFirst(sampler, skip), batch_size=None, num_workers=workers)


def eval_loader(cuts: CutSet, encode: Encoder, batch_seconds: float = 200) -> DataLoader:
    """Every cut once, longest first, without augmentation."""
    ordered = CutSet.from_cuts(sorted(cuts, key=lambda cut: -cut.duration))
    sampler = _sampler(DynamicCutSampler, ordered, max_duration=batch_seconds)
    return DataLoader(Cuts(encode, None, 0, 0), sampler=sampler, batch_size=None)
