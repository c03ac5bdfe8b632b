"""onnxruntime on the CPU: the network alone, for any torch model; speech models are decoded by greedy search.

A model is one ONNX file, or a folder with model.onnx. Features and tokens of a speech model: lhotse's `Fbank()`, and
the tokens.txt beside the file.
"""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asrcompress.errors import UserError
from asrcompress.files import atomic, require_file
from asrcompress.measure import timing as timed
from asrcompress.runtimes.base import RATE, Exported, Timing, Transcripts, Wave, check_length, has_frame
from asrcompress.runtimes.onnx_graph.session import (
    FRAMES_PER_SECOND,
    example,
    file_of,
    is_acoustic,
    run,
    session,
    speech,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

NAME = "onnxruntime"
CHUNK, CONTEXT, CHUNKS = 0.64, 0.5, 200  # seconds; the TDNN of conf/model/tdnn.yaml sees 0.5 s to either side


def export(model: "nn.Module", path: Path, inputs: Any = None, *,
           dynamic: Mapping[str, Mapping[int, str]] | None = None, check: Sequence[Any] = (),
           exporter: str = "torchscript", tolerance: float | None = None, **options: Any) -> Exported:
    """Write PATH, an ONNX file of any model that `torch.onnx.export` takes.

    `inputs`, `dynamic`, `exporter`: see `onnx_graph.traced.convert`. A TDNN or Conformer without `inputs` is written
    as a hand-made graph, for which `options` are those of `onnx_graph.options.Options`.
    `check`: further inputs of other sizes on which torch and onnxruntime have to agree, beside `inputs`. `tolerance`:
    the largest difference, relative to the largest output where that is above 1 (0.0001 unless given). Errors:
    UserError where the model cannot be exported, and where the two do not agree; nothing is written then.
    """
    from asrcompress.runtimes.onnx_graph import acoustic, traced

    if acoustic.known(model) and inputs is None:
        given = {"dynamic": dynamic is not None, "check": len(check) > 0, "exporter": exporter != "torchscript"}
        if unused := next((name for name in given if given[name]), None):
            raise UserError(f"a {type(model).__name__} without inputs is written as a hand-made graph, for which there "
                            f"is no '{unused}'; give inputs, or leave '{unused}' away")
        return _export_acoustic(model, Path(path), tolerance, options)
    if options:
        raise UserError(f"only the hand-made graphs, of {acoustic.names()}, have the option '{next(iter(options))}', "
                        f"and this is a {type(model).__name__} or has inputs of its own")
    found = traced.convert(model, inputs, dynamic=dynamic, exporter=exporter)
    error = traced.check(model, found, [*found.examples, *check], traced.TOLERANCE if tolerance is None else tolerance)
    return _write(Path(path), found.data, f"outputs equal within {error:.1e}")


def _export_acoustic(model: "nn.Module", path: Path, tolerance: float | None, options: dict[str, Any]) -> Exported:
    from asrcompress.options import make
    from asrcompress.runtimes.onnx_graph import acoustic, parity
    from asrcompress.runtimes.onnx_graph.options import Options

    chosen = make(Options, options, f"runtime {NAME}")
    proto, config = acoustic.convert(model, chosen), model.config
    batches = parity.random_batches(chosen.batch1, config["features"])  # type: ignore[index,arg-type]
    agreement = parity.agreement(model, proto, batches, chosen.precision, tolerance, chosen.acoustic_scale)
    return _write(path, proto.SerializeToString(), agreement)


def _write(path: Path, data: bytes, agreement: str) -> Exported:
    with atomic(path) as temporary:
        temporary.write_bytes(data)
    return Exported(path, len(data), agreement)


class OnnxModel:
    """An acoustic model in onnxruntime, callable as the torch model is, so that archives and searches take it.

    x (N, T, features) float32, x_lens (N,) int64 -> log_probs (N, T', vocab), lengths (N,), without the file's acoustic
    scale. Errors: UserError for a file that is no acoustic model of `asrcompress export`, and when called on utterances
    longer than what it is made for.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        self.path = file_of(path)
        self._session = session(self.path, threads)
        metadata = self._session.get_modelmeta().custom_metadata_map
        if not is_acoustic(self._session) or "subsampling_factor" not in metadata:
            raise UserError(f"{path} is not an acoustic model that `asrcompress export` wrote; export it again")
        self.subsampling = int(metadata["subsampling_factor"])
        shapes = {one.name: one.shape for one in (*self._session.get_inputs(), *self._session.get_outputs())}
        self.config = {"vocab": int(self._session.get_outputs()[0].shape[2])}
        self.batch1 = shapes["x"][0] == 1
        self.max_seconds = float(metadata.get("max_seconds", math.inf))
        self._scale = float(metadata.get("acoustic_scale", 1))

    def __call__(self, x: "Tensor", x_lens: "Tensor") -> "tuple[Tensor, Tensor]":
        import torch

        check_length("an utterance", x.shape[1] / FRAMES_PER_SECOND, self.max_seconds, self.path)
        log_probs, lens = run(self._session, None, {"x": x.numpy(), "x_lens": x_lens.numpy()})
        return torch.from_numpy(log_probs) / self._scale, torch.from_numpy(lens)


def load(path: Path, threads: int = 1, graph: Path | None = None, max_active: int = 3000,
         language: str | None = None) -> OnnxModel:
    """The acoustic model of a file or folder. Errors: UserError with a graph, since nothing here searches one, and with
    a language, which is for a Whisper."""
    if language is not None:
        raise UserError("--language is for a Whisper in --runtime sherpa-onnx; leave it away")
    if graph is not None:
        raise UserError("--graph is for --runtime sherpa-onnx: onnxruntime runs the network alone; `asrcompress "
                        "posteriors` and `asrcompress search` decode its output over a graph")
    return OnnxModel(path, threads)


def decode(loaded: OnnxModel, waves: Iterable[Wave], words: Path | None = None) -> Transcripts:
    """Greedy tokens of one utterance after the other, 16 kHz; words come from BPE tokens only.

    Errors: UserError for another sampling rate, for an utterance that is too long for the file, and where the model's
    tokens.txt is not beside it.
    """
    import torch
    from lhotse import Fbank

    from asrcompress.decoding.greedy import best_tokens, bpe_words
    from asrcompress.lang.tokens import read_symbols
    from asrcompress.runtimes.onnx_graph.acoustic import check_tokens

    table = require_file(loaded.path.with_name("tokens.txt"), "the symbol table")
    check_tokens(table, loaded.config["vocab"])
    names, fbank, found = {number: token for token, number in read_symbols(table).items()}, Fbank(), Transcripts()
    for utt, samples, rate in waves:
        if rate != RATE:
            raise UserError(f"{utt} has {rate} samples a second, and the model hears {RATE}; resample it, or take "
                            "--runtime sherpa-onnx, which does")
        check_length(utt, len(samples) / rate, loaded.max_seconds, loaded.path)
        if not has_frame(samples, rate):
            found.tokens[utt] = found.words[utt] = ""
            continue
        started = time.perf_counter()
        features = torch.as_tensor(fbank.extract(samples, rate))[None]
        log_probs, _ = loaded(features, torch.tensor([features.shape[1]]))
        tokens = [names[token] for token in best_tokens(log_probs[0].numpy())]
        found.seconds += time.perf_counter() - started
        found.audio += len(samples) / rate
        found.tokens[utt], found.words[utt] = " ".join(tokens), bpe_words(tokens)
    return found


def measure(path: Path, timing: Timing = Timing()) -> dict[str, Any]:  # noqa: B008
    """The network alone, on random features or `timing.inputs`: `measure.timing.alone`, or `in_turns` with `against`.

    Of a speech model also chunk_p50_ms, chunk_p95_ms and chunk_p99_ms: percentiles of 200 calls on 0.64 s of features
    with 0.5 s more on either side, as a recognizer that waits for 0.64 s of sound would make them.
    """
    if timing.graph:
        load(path, graph=timing.graph)

    def ready(one: Path) -> tuple[timed.Run, float | None]:
        opened = session(file_of(one), timing.threads)
        feeds = example(opened, timing.seconds, timing.inputs)
        speech = is_acoustic(opened) and timing.inputs is None
        return lambda: run(opened, None, feeds), timing.seconds if speech else None

    if timing.against:
        return timed.in_turns(ready(timing.against)[0], ready(path)[0])
    found = timed.alone(NAME, lambda: ready(path), timing.threads)
    return found | (_chunks(session(file_of(path), timing.threads)) if "rtf" in found else {})


def _chunks(opened: Any) -> dict[str, float]:
    """Percentiles of the time of a call on one chunk, in milliseconds."""
    features = next(one.shape[2] for one in opened.get_inputs() if one.name == "x")
    x = speech(round((CHUNK + 2 * CONTEXT) * FRAMES_PER_SECOND), features)[None]
    feeds = {"x": x, "x_lens": np.array([x.shape[1]])}
    times = [timed.clock(lambda: run(opened, None, feeds)) for _ in range(CHUNKS + 1)][1:]
    p50, p95, p99 = (1e3 * np.percentile(times, (50, 95, 99))).tolist()
    return {"chunk_p50_ms": round(p50, 3), "chunk_p95_ms": round(p95, 3), "chunk_p99_ms": round(p99, 3)}
