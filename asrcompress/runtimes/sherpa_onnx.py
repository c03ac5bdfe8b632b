"""sherpa-onnx on this machine: the same C++ core that transcribes on phones and small boards."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from asrcompress.errors import UserError
from asrcompress.files import require_file
from asrcompress.lang.tokens import read_symbols

Wave = tuple[str, npt.NDArray[np.float32], int]  # utterance, samples in [-1, 1], sampling rate


@dataclass
class Transcripts:
    """What the device file made of some waves. `seconds` is computing, features included, and `audio` was heard."""

    tokens: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    audio: float = 0.0

    @property
    def rtf(self) -> float:
        return self.seconds / self.audio if self.audio else 0.0


def recognizer(folder: Path, graph: Path | None = None, max_active: int = 3000, threads: int = 1) -> Any:
    """The recognizer of FOLDER/model.onnx, greedy or over HLG.fst. sherpa-onnx ends the process on missing files."""
    try:
        import sherpa_onnx
    except ImportError:
        raise UserError("sherpa-onnx is not installed; `pip install sherpa-onnx`") from None
    model = require_file(folder / "model.onnx", "the device model")
    tokens = require_file(folder / "tokens.txt", "the symbol table")
    try:
        return sherpa_onnx.OfflineRecognizer.from_zipformer_ctc(
            str(model), str(tokens), num_threads=threads, ctc_max_active=max_active,
            ctc_graph=str(require_file(graph, "the graph")) if graph else "")
    except RuntimeError as error:
        raise UserError(f"sherpa-onnx cannot load {model}: {' '.join(str(error).split())}") from None


def transcribe(recognizer: Any, waves: Iterable[Wave], words: Path | None = None) -> Transcripts:
    """One utterance after the other. Words come from a graph and `words` (words.txt), or from BPE tokens."""
    names = {number: word for word, number in read_symbols(words).items()} if words else {}
    found = Transcripts()
    for utt, samples, rate in waves:
        started = time.perf_counter()
        stream = recognizer.create_stream()
        stream.accept_waveform(rate, samples)
        recognizer.decode_stream(stream)
        found.seconds += time.perf_counter() - started
        found.audio += len(samples) / rate
        result = stream.result
        found.tokens[utt] = " ".join(token.strip() for token in result.tokens)
        found.words[utt] = " ".join(names[word] for word in result.words) if words else " ".join(result.text.split())
    return found


def waves_of_set(data: Path, name: str) -> Iterator[Wave]:
    """The recordings of a prepared set, by the ids of its transcripts."""
    from lhotse import load_manifest

    for cut in load_manifest(require_file(data / f"{name}.jsonl.gz", "the prepared set")):
        yield cut.supervisions[0].id, np.ascontiguousarray(cut.load_audio()[0], np.float32), cut.sampling_rate


def waves_of_files(paths: Iterable[Path]) -> Iterator[Wave]:
    """Audio files, the first channel, by their names without ending."""
    import soundfile

    for path in paths:
        try:
            samples, rate = soundfile.read(require_file(path, "the audio file"), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise UserError(f"{path} cannot be read as audio ({error}); give WAV or FLAC files") from None
        yield path.stem, np.ascontiguousarray(samples[:, 0]), rate
