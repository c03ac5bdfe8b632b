"""Prepared sets of any size: numbers of every cut in memory, and the cuts themselves read when they are wanted."""

import gzip
import json
import zlib
from array import array
from collections.abc import Iterator, Sequence
from itertools import compress
from pathlib import Path

import numpy as np
from lhotse import CutSet, MonoCut
from lhotse.serialization import deserialize_item
from numpy.typing import NDArray

from asrcompress.data.copies import origin
from asrcompress.errors import UserError
from asrcompress.files import require_file
from asrcompress.lang.lexicon import Encoder

Numbers = NDArray[np.int64]


class Utterances:
    """The cuts of some prepared sets, without words outside the lexicon and of at most `max_duration` seconds.

    The manifests are read through once: then a cut is a number, from 0 on in the order of the manifests, its duration
    is `durations` (C,) in seconds, its utterance is `utterance` (C,) and its set is `source` (C,); no cut is kept. What
    is left out is counted on the standard output. Errors: UserError where a set is missing, no cut is left, or an
    utterance comes twice.
    """

    def __init__(self, folder: Path, names: Sequence[str], encode: Encoder, max_duration: float | None = None) -> None:
        self.paths = [require_file(folder / f"{name}.jsonl.gz", "the prepared set") for name in names]
        self.state = [_state(path) for path in self.paths]
        found = _Found()
        for number, path in enumerate(self.paths):
            for row, line in enumerate(lines(path), 1):
                try:
                    name, said, text, duration = _facts(line)
                except (ValueError, LookupError, TypeError, AttributeError):
                    raise UserError(f"{path}, line {row} is no cut with a transcript; prepare the set again") from None
                if not found.add(number, name, said, duration):
                    raise UserError(f"utterance {name} of {path} comes twice in {' '.join(names)}; name each set once, "
                                    "and give every utterance its own id")
                if len(found.known) < len(found.numbers):
                    found.known.append(not encode.unknown(text))
        source, utterance = np.frombuffer(found.source, np.int16), np.frombuffer(found.utterance, np.int64)
        durations, known = np.frombuffer(found.durations), np.frombuffer(found.known, np.bool_)[utterance]
        self._kept = known & (durations <= (max_duration or np.inf))
        if not self._kept.all():
            limit = f" and {(known & ~self._kept).sum()} are longer than {max_duration} s" if max_duration else ""
            print(f"{' '.join(names)}: of {len(known)} cuts {(~known).sum()} have words outside the lexicon{limit}; "
                  "left out", flush=True)
        if not self._kept.any():
            raise UserError(f"no cut of {' '.join(names)} in {folder} can be used for training; check the lexicon, and "
                            "training.max_duration")
        self.source: Numbers = source[self._kept].astype(np.int64)
        self.durations = durations[self._kept]
        self._starts = np.cumsum([0, *np.bincount(source, minlength=len(names))])
        # Utterances are numbered anew without those that are left out whole.
        self.utterance: Numbers = np.unique(utterance[self._kept], return_inverse=True)[1]
        self._by_utterance = np.argsort(self.utterance, kind="stable")
        self._copies = np.bincount(self.utterance)

    def __len__(self) -> int:
        """The number of cuts: speed copies count."""
        return len(self.durations)

    def __iter__(self) -> Iterator[MonoCut]:
        """Every cut, in the order of the manifests."""
        return map(cut_of, self.read(np.arange(len(self))))

    def in_memory(self) -> CutSet:
        """Every cut, for sets that are known to be small."""
        return CutSet.from_cuts(self)

    def texts(self) -> Iterator[str]:
        """The words of every utterance once, however many speed copies there are of it."""
        first = self._by_utterance[np.cumsum(self._copies) - self._copies]
        return (_facts(line)[2] for line in self.read(np.sort(first)))

    def one_speed_each(self, rng: np.random.Generator, fraction: float = 1.0) -> Numbers:
        """Sorted numbers of cuts: one of the speed copies of every utterance, or of a share of them, at least one."""
        chosen = self._by_utterance[np.cumsum(self._copies) - self._copies + rng.integers(self._copies)]
        if fraction < 1.0:
            chosen = rng.permutation(chosen)[:max(1, round(fraction * len(chosen)))]
        return np.sort(chosen)

    def read(self, numbers: Numbers) -> Iterator[bytes]:
        """The manifest lines of cuts, for numbers without repetition whose cuts of each set are in ascending order.

        Lines between them are passed over unread. Errors: UserError where a manifest was written anew.
        """
        wanted = np.zeros(len(self._kept), np.bool_)
        wanted[np.flatnonzero(self._kept)[numbers]] = True
        streams = [compress(lines(path), wanted[start:end].tobytes()) for path, start, end in
                   zip(self.paths, self._starts, self._starts[1:], strict=False)]
        for path, state in zip(self.paths, self.state, strict=True):
            if _state(path) != state:
                raise UserError(f"{path} was written anew while a training reads it; start the training again")
        for source in self.source[numbers]:
            yield next(streams[source])


class Targets:
    """The token sequences of every utterance, to be gone through more than once without being in memory."""

    def __init__(self, utterances: Utterances, encode: Encoder) -> None:
        self.utterances, self.encode = utterances, encode

    def __iter__(self) -> Iterator[list[int]]:
        return map(self.encode, self.utterances.texts())


def load_cuts(folder: Path, names: Sequence[str], encode: Encoder, max_duration: float | None = None) -> CutSet:
    """The cuts of `Utterances` in memory: for development sets and others that are small. Errors: UserError."""
    return Utterances(folder, names, encode, max_duration).in_memory()


def seconds_of(path: Path) -> float:
    """The seconds of speech in a manifest, each utterance once: speed copies do not count. Errors: UserError."""
    facts = map(_facts, lines(require_file(path, "the prepared set")))
    return sum(duration for name, said, _, duration in facts if said == name)


def cut_of(line: bytes) -> MonoCut:
    """The cut of a line of a manifest."""
    return deserialize_item(json.loads(line))


class _Found:
    """Numbers of every cut as a pass over the manifests finds them."""

    def __init__(self) -> None:
        self.source, self.utterance, self.durations = array("h"), array("q"), array("d")
        self.known = array("b")  # of every utterance: whether the lexicon has its words
        self.numbers: dict[str, int] = {}
        self._seen: set[int] = set()

    def add(self, source: int, name: str, said: str, duration: float) -> bool:
        """Note a cut; whether none before had this utterance and id.

        Two of a million pairs have one hash once in ten million passes, and then in the next pass they have not.
        """
        number, before = self.numbers.setdefault(name, len(self.numbers)), len(self._seen)
        self.source.append(source)
        self.utterance.append(number)
        self.durations.append(duration)
        self._seen.add(hash((name, said)))
        return len(self._seen) > before


def _facts(line: bytes) -> tuple[str, str, str, float]:
    """The utterance, the id, the words and the seconds of the cut of a line, most often without making the cut.

    They stand in the first half of a line, as lhotse writes it, and half a line is parsed in half the time.
    """
    try:
        cut = json.loads(line.partition(b', "features": ')[0] + b"}")
    except ValueError:
        cut = json.loads(line)
    said = cut["supervisions"][0]
    name = (said.get("custom") or {}).get("origin") or origin(cut_of(line))
    return name, said["id"], said["text"], cut["duration"]


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a manifest. Errors: UserError where it cannot be unpacked."""
    try:
        with gzip.open(path) as stream:
            yield from stream
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise UserError(f"{path} is cut off or damaged; remove it and prepare the set again") from None


def _state(path: Path) -> tuple[int, int]:
    """What changes when a file is written anew."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns
