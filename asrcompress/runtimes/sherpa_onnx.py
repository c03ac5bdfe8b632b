"""sherpa-onnx on this machine: the same C++ core that transcribes on phones and small boards.

A model is a folder with model.onnx and tokens.txt. It hears 80 log-mel energies that sherpa-onnx computes itself, and
has a subsampling of 4. A Whisper is a folder with encoder.onnx, decoder.onnx and tokens.txt.
"""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from asrcompress.errors import UserError
from asrcompress.files import require_file
from asrcompress.lang.tokens import read_symbols
from asrcompress.measure import timing as timed
from asrcompress.options import require
from asrcompress.runtimes.base import RATE, Exported, Timing, Transcripts, Wave, check_length, has_frame
from asrcompress.runtimes.onnx_graph.session import is_whisper

if TYPE_CHECKING:
    from torch import nn

    from asrcompress.runtimes.onnx_graph.parity import Batch

NAME, WINDOW = "sherpa-onnx", 29.5  # seconds of an utterance that it gives to a Whisper
FEATURES, SUBSAMPLING, BEAM = 80, 4, 16.0  # it takes all three for granted
LEAST_ACTIVE = 20  # states that its search keeps in any case; it ends the process where the most are not more


def export(model: "nn.Module", path: Path, inputs: "Sequence[Batch] | None" = None, *,
           tokens: Path | None = None, tolerance: float | None = None, **options: Any) -> Exported:
    """Write PATH/model.onnx and PATH/tokens.txt of a TDNN or Conformer, compressed or not, or the files of a Whisper.

    `inputs`: batches of x (N, T, 80), x_lens (N,) on which torch and onnxruntime have to agree, random ones unless
    given. `tokens`: the tokens.txt of its lang folder. `tolerance`: see `parity.TOLERANCES`. `options`: those of
    `onnx_graph.options.Options`; a Whisper knows its tokens, and takes `inputs` (1, mels, 3000), `precision` and
    `tolerance` alone. Errors: UserError for another model, tokens or option, and where the two do not agree;
    nothing is written then.
    """
    from asrcompress import options as typed
    from asrcompress.runtimes.onnx_graph import acoustic, parity, whisper
    from asrcompress.runtimes.onnx_graph.options import Options

    if whisper.is_whisper(model):
        from asrcompress.recognisers.whisper import Whisper

        unknown = [name for name in options if name != "precision"] + (["tokens"] if tokens else [])
        if unknown:
            raise UserError(f"the option '{unknown[0]}' is not for a Whisper; it takes precision and tolerance")
        if not hasattr(model, "recogniser"):
            raise UserError("this Whisper does not know its tokens; load it with recognisers.load_model('hf:FOLDER')")
        mel: Any = inputs
        return whisper.export_whisper(model, path, Whisper(model).vocabulary, options.get("precision", "float32"),
                                      mel, tolerance)
    ranges = options.pop("ranges", None)
    chosen = replace(typed.make(Options, options, f"runtime {NAME}"), ranges=ranges)
    check(model)
    if tokens is None:
        raise UserError("sherpa-onnx needs the tokens of a model; give tokens=, the tokens.txt of its lang folder")
    acoustic.check_tokens(Path(tokens), model.config["vocab"])  # type: ignore[arg-type,index]
    proto = acoustic.convert(model, chosen)
    batches = inputs or parity.random_batches(chosen.batch1)
    agreement = parity.agreement(model, proto, batches, chosen.precision, tolerance, chosen.acoustic_scale)
    data = proto.SerializeToString()
    acoustic.write(Path(path), data, Path(tokens))
    return Exported(Path(path) / "model.onnx", len(data), agreement)


def check(model: "nn.Module") -> None:
    """A UserError unless the model is one that sherpa-onnx can run."""
    from asrcompress.runtimes.onnx_graph import acoustic

    if not acoustic.known(model):
        raise UserError(f"sherpa-onnx runs {acoustic.names()} models only, and this is a {type(model).__name__}; "
                        "export it for the runtime onnxruntime")
    if (model.config["features"], model.subsampling) != (FEATURES, SUBSAMPLING):
        raise UserError(f"sherpa-onnx wants {FEATURES} features and a subsampling of {SUBSAMPLING}, and this model has "
                        f"{model.config['features']} and {model.subsampling}; train one with those")


class Recognizer(NamedTuple):
    """sherpa-onnx's `OfflineRecognizer`, its file, and the longest utterance that this is made for, in seconds."""

    offline: Any
    path: Path
    max_seconds: float = math.inf


def load(path: Path, threads: int = 1, graph: Path | None = None, max_active: int = 3000,
         language: str | None = None) -> Recognizer:
    """The recognizer of a folder, greedy or over `graph` (HLG.fst) with at most `max_active` states a frame.

    `language` is for a Whisper of many languages, which hears English unless it is told. Errors: UserError for a
    missing file or a language that the model has not (on which sherpa-onnx would end the process), and for a file that
    it cannot load.
    """
    offline, model = _offline(path, threads, graph, max_active, language), path / "model.onnx"
    if is_whisper(path):
        return Recognizer(offline, path, WINDOW)
    return Recognizer(offline, model, float(_metadata(model).get("max_seconds", math.inf)))


def _metadata(model: Path) -> dict[str, str]:
    """The metadata of an ONNX file."""
    import onnx

    return {one.key: one.value for one in onnx.load(str(model), load_external_data=False).metadata_props}


def _offline(path: Path, threads: int, graph: Path | None, max_active: int = 3000, language: str | None = None) -> Any:
    try:
        import sherpa_onnx
    except ImportError:
        raise UserError("sherpa-onnx is not installed; `pip install sherpa-onnx`") from None
    if path.is_file():
        raise UserError(f"sherpa-onnx needs a folder with model.onnx and tokens.txt, and {path} is none")
    whisper = is_whisper(path)
    model = require_file(path / ("encoder.onnx" if whisper else "model.onnx"), "the device model")
    tokens = require_file(path / "tokens.txt", "the symbol table")
    if whisper and graph:
        raise UserError(f"{path} is a Whisper, which says words by itself; leave the graph away")
    if language:
        codes = _metadata(model).get("all_language_codes", "").split(",") if whisper else []
        if language not in codes:
            there = ", ".join(filter(None, codes)) or "none to choose"
            raise UserError(f"{path} has no language '{language}'; it has {there}")
    require(max_active > 0, f"at most {max_active} states a frame (--max-active): give 1 or more, such as 3000")
    try:
        if whisper:
            decoder = require_file(path / "decoder.onnx", "the decoder")
            return sherpa_onnx.OfflineRecognizer.from_whisper(str(model), str(decoder), str(tokens),
                                                              language=language or "en", num_threads=threads)
        return sherpa_onnx.OfflineRecognizer.from_zipformer_ctc(
            str(model), str(tokens), num_threads=threads, ctc_max_active=max(max_active, LEAST_ACTIVE + 1),
            ctc_graph=str(require_file(graph, "the graph")) if graph else "")
    except RuntimeError as error:
        raise UserError(f"sherpa-onnx cannot load {model}: {' '.join(str(error).split())}") from None


def decode(loaded: Recognizer, waves: Iterable[Wave], words: Path | None = None) -> Transcripts:
    """One utterance after the other, of any sampling rate. Words come from a graph and `words` (its words.txt), or from
    BPE tokens. Errors: UserError for a `words` that cannot be read or lacks a word of the graph, and for an utterance
    too long for the file."""
    names = {number: word for word, number in read_symbols(words).items()} if words else {}
    found, whisper = Transcripts(), is_whisper(loaded.path)
    for utt, samples, rate in waves:
        check_length(utt, len(samples) / rate, loaded.max_seconds, loaded.path)
        if not has_frame(samples, rate):
            found.tokens[utt] = found.words[utt] = ""
            continue
        started = time.perf_counter()
        stream = loaded.offline.create_stream()
        stream.accept_waveform(rate, samples)
        loaded.offline.decode_stream(stream)
        found.seconds += time.perf_counter() - started
        found.audio += len(samples) / rate
        result = stream.result
        if whisper:  # a token may be a part of a character
            found.tokens[utt] = found.words[utt] = " ".join(result.text.split())
            continue
        found.tokens[utt] = " ".join(token.strip() for token in result.tokens)
        if words and (highest := max(result.words, default=0)) >= len(names):
            raise UserError(f"{words} has {len(names)} words, and the graph says word {highest}; give the words.txt "
                            "that the graph was made with")
        found.words[utt] = " ".join(names[word] for word in result.words) if words else " ".join(result.text.split())
    return found


def measure(path: Path, timing: Timing = Timing()) -> dict[str, Any]:  # noqa: B008
    """Features, network and search, on quiet white noise: `measure.timing.alone`, or `in_turns` with `against`.

    Of any length: what a file takes beyond the length that it is made for is measured here. Errors: UserError for a
    Whisper with more than it hears at once.
    """
    if is_whisper(path):
        require(timing.seconds <= WINDOW, f"a Whisper hears {WINDOW:g} s at most, and --seconds is {timing.seconds}; "
                "give fewer")

    def ready(folder: Path) -> timed.Run:
        offline = _offline(folder, timing.threads, timing.graph)
        recognizer = Recognizer(offline, folder)
        return lambda: decode(recognizer, [("noise", samples, RATE)])

    samples = (0.02 * np.random.default_rng(0).standard_normal(timing.seconds * RATE)).astype(np.float32)
    if timing.against:
        return timed.in_turns(ready(timing.against), ready(path))
    return timed.alone(NAME, lambda: (ready(path), timing.seconds), timing.threads)
