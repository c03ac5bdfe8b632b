"""What every runtime is: a module with these four functions. Nothing here imports torch, so that a process that only
measures holds no more than a device does."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from asrcompress.errors import UserError
from asrcompress.files import require_file

Wave = tuple[str, npt.NDArray[np.float32], int]  # utterance, samples in [-1, 1], sampling rate
RATE = 16000  # of the speech that models hear, in Hz
SHORTEST = 140  # samples at RATE of which lhotse makes a frame: 400 samples, mirrored at both ends


class Exported(NamedTuple):
    """A file that was written, its bytes, and how closely the runtime agrees with torch, in words."""

    path: Path
    size: int
    agreement: str


def check_length(what: str, seconds: float, most: float, path: Path) -> None:
    """A UserError for an utterance longer than what a file is made for."""
    if seconds > most:
        raise UserError(f"{what} has {seconds:.1f} s, and {path} is made for {most:g} s at most, which bounds its "
                        "memory; cut it at pauses, or export with a larger --max-seconds")


def has_frame(samples: npt.NDArray[np.float32], rate: int = RATE) -> bool:
    """Whether speech, samples (T,), is long enough for a frame of features. What is shorter has no tokens."""
    return len(samples) * RATE >= SHORTEST * rate


class Timing(NamedTuple):
    """How to measure a file: on one utterance of `seconds`, with `threads`.

    `graph`: HLG.fst, for a runtime that searches. `against`: another file of the same runtime, timed in turns with this
    one. `inputs`: an .npz file with the arrays that the model takes, where it is no model of speech features.
    """

    threads: int = 1
    seconds: int = 20
    graph: Path | None = None
    against: Path | None = None
    inputs: Path | None = None


@dataclass
class Transcripts:
    """What a file made of some waves: tokens and words by utterance; seconds of computing, and of audio."""

    tokens: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    audio: float = 0.0

    @property
    def rtf(self) -> float:
        """Seconds of computing, features included, per second of audio; 0 without audio."""
        return self.seconds / self.audio if self.audio else 0.0


class Runtime(Protocol):
    """A module of `asrcompress.runtimes`. All four raise UserError where a file or an option is not what they take.

    export(model, path, inputs=None, **options) -> Exported: write the file; nothing is written unless torch agrees
    load(path, threads=1, graph=None, max_active=3000, language=None) -> what `decode` takes
    decode(loaded, waves, words=None) -> Transcripts: one utterance after the other; `words` is the graph's words.txt
    measure(path, timing) -> dict: load, run and time a file in this process, without torch
    """

    export: Callable[..., Exported]
    load: Callable[..., Any]
    decode: Callable[..., Transcripts]
    measure: Callable[..., dict[str, Any]]


def waves_of_set(data: Path, name: str) -> Iterator[Wave]:
    """The recordings of the prepared set DATA/NAME.jsonl.gz, by the ids of its transcripts. Errors: UserError."""
    from lhotse import load_manifest

    return waves_of_cuts(load_manifest(require_file(data / f"{name}.jsonl.gz", "the prepared set")))


def waves_of_cuts(cuts: Iterable[Any]) -> Iterator[Wave]:
    """The recordings of lhotse's cuts."""
    for cut in cuts:
        yield cut.supervisions[0].id, np.ascontiguousarray(cut.load_audio()[0], np.float32), cut.sampling_rate


def waves_of_files(paths: Iterable[Path]) -> Iterator[Wave]:
    """Audio files, the first channel, by their names without ending; those are numbered (0-a, 1-b, 2-a) where two are
    the same. Errors: UserError where one cannot be read or has no samples."""
    import soundfile

    paths = list(paths)
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [f"{number}-{name}" for number, name in enumerate(names)]
    for path, name in zip(paths, names, strict=True):
        try:
            samples, rate = soundfile.read(require_file(path, "the audio file"), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise UserError(f"{path} cannot be read as audio ({error}); give WAV or FLAC files") from None
        if not len(samples):
            raise UserError(f"{path} has no samples; leave it away, or record it again")
        yield name, np.ascontiguousarray(samples[:, 0]), rate
