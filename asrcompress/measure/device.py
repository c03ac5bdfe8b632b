"""Bytes, multiply-adds, speed and memory of a device file, in the runtimes that devices have.

The functions that measure run in a Python of their own, which never imports torch: of what it holds, only Python, numpy
and the runtime are not the model's.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from asrcompress.errors import UserError
from asrcompress.files import require_file
from asrcompress.measure import machine, speed
from asrcompress.runtimes.session import acoustic_model

FEATURES, FRAMES_PER_SECOND, RATE = 80, 100, 16000
RUNTIMES = ("onnxruntime", "sherpa-onnx")
CHUNK, CONTEXT = 0.64, 0.5  # seconds; the TDNN of conf/model/tdnn.yaml sees 0.5 s to either side
CHUNKS, ROUNDS, RESAMPLES = 200, 30, 2000


class Options(NamedTuple):
    """How to measure. `graph`: HLG.fst, for sherpa-onnx. `against`: the model.onnx that is timed in turns with this."""

    runtime: str = "onnxruntime"
    threads: int = 1
    seconds: int = 20
    graph: Path | None = None
    against: Path | None = None


def is_device_file(path: Path | str) -> bool:
    """An ONNX file, or a folder: what is measured here, and not as a packed model."""
    return Path(path).is_dir() or Path(path).suffix == ".onnx"


def file_of(path: Path | str) -> Path:
    """The ONNX file of a device folder, or the file itself."""
    path = require_file(path, "the device file")
    return require_file(path / "model.onnx", "the device model") if path.is_dir() else path


def measure(path: Path | str, options: Options = Options()) -> dict[str, Any]:  # noqa: B008
    """Everything that is known of a device file: the keys of a result row that belong to it alone.

    device_bytes, macs_per_second   of the file; a second of audio in an utterance of `seconds`
    load_seconds, rtf, chunk_p*_ms, peak_rss_bytes   see `in_this_process`; from a process for nothing else
    device_ratio, speedup, speedup_ci95              with `against`: its bytes over these; see `in_turns`
    """
    model = file_of(path)
    found: dict[str, Any] = {"device_bytes": model.stat().st_size,
                             "macs_per_second": macs_per_second(model, options.seconds)}
    found |= fresh(path, options._replace(against=None))
    if options.against:
        found["device_ratio"] = round(file_of(options.against).stat().st_size / found["device_bytes"], 4)
        found |= fresh(path, options)
    return found


def fresh(path: Path | str, options: Options) -> dict[str, Any]:
    """`in_this_process`, or `in_turns` where there is something to compare with, in a new Python."""
    arguments = [str(path), "--runtime", options.runtime, "--seconds", str(options.seconds)]
    for name in ("graph", "against"):
        value = getattr(options, name)
        arguments += [f"--{name}", str(value)] if value else []
    return speed.in_fresh_python(arguments, options.threads)


def here(path: Path | str, options: Options) -> dict[str, Any]:
    """What `fresh` has its new Python do."""
    return in_turns(path, options) if options.against else in_this_process(path, options)


def in_this_process(path: Path | str, options: Options = Options()) -> dict[str, Any]:  # noqa: B008
    """Load a device file, run it, and say what that took, on one utterance a call.

    load_seconds    until the runtime is ready: reading, optimising the graph and, with `graph`, reading HLG.fst
    rtf             seconds of computing per second of audio, the median of 5 runs over `seconds`. onnxruntime: the
                    network alone, on features. sherpa-onnx: features, network and search, on noise
    chunk_p50_ms    onnxruntime only: milliseconds of one call on 0.64 s of features with 0.5 s more on either side, as
                    a recogniser that waits for 0.64 s of sound would make it; the p50, p95 and p99 of 200 calls
    peak_rss_bytes  of the whole process; `rss_before_load_bytes` of them are Python, numpy and the runtime
    """
    installed = version(options.runtime)  # imported, so that its own memory counts as there before the model
    before, start = machine.peak_rss(), time.perf_counter()
    run, x = ready(path, options)
    loaded = time.perf_counter() - start
    seconds = statistics.median([clock(run, x) for _ in range(speed.REPEATS + 1)][1:])  # the first does not count
    found = {"load_seconds": round(loaded, 4), "rtf": round(seconds / options.seconds, 6)}
    found |= chunks(run) if options.runtime == "onnxruntime" else {}
    return {**found, "peak_rss_bytes": machine.peak_rss(), "rss_before_load_bytes": before, "threads": options.threads,
            "cpu": machine.cpu(), "cpu_flags": machine.cpu_flags(), "runtime": options.runtime,
            "runtime_version": installed}


def in_turns(path: Path | str, options: Options) -> dict[str, Any]:
    """Dense, this, dense, this, ... over one utterance: how many times faster this is, and the 95 % interval of that.

    The ratio of the medians of 30 rounds after two that do not count; the interval is a bootstrap over rounds, so that
    what slows down the machine for a while slows down both.
    """
    assert options.against
    pair = [ready(one, options) for one in (options.against, path)]
    times = np.array([[clock(*one) for one in pair] for _ in range(ROUNDS + 2)])[2:]
    low, high = interval(times)
    return {"speedup": round(float(ratio_of_medians(times)), 4), "speedup_ci95": [round(low, 4), round(high, 4)]}


def ratio_of_medians(times: np.ndarray[Any, Any]) -> Any:
    """(..., rounds, 2) -> (...): the first column's median over the second's."""
    medians = np.median(times, axis=-2)
    return medians[..., 0] / medians[..., 1]


def interval(times: np.ndarray[Any, Any]) -> tuple[float, float]:
    """The 95 % interval of `ratio_of_medians` when whole rounds (rounds, 2) are drawn again with replacement."""
    drawn = np.random.default_rng(0).integers(len(times), size=(RESAMPLES, len(times)))
    low, high = np.percentile(ratio_of_medians(times[drawn]), (2.5, 97.5))
    return float(low), float(high)


def ready(path: Path | str, options: Options) -> tuple[Callable[[Any], Any], np.ndarray[Any, Any]]:
    """What runs a device file, and what it is timed on."""
    if options.runtime == "sherpa-onnx":
        return recognizer(Path(path), options), noise(options.seconds)
    if options.graph:
        raise UserError("--graph is for --runtime sherpa-onnx: onnxruntime runs the network alone")
    return network(file_of(path), options.threads), speech(options.seconds)


def network(path: Path, threads: int = 1) -> Callable[[Any], Any]:
    """features (T, 80) -> what onnxruntime makes of them; UserError where it is not a file of `asrcompress export`."""
    session = acoustic_model(path, threads)
    return lambda x: session.run(None, {"x": x[None], "x_lens": np.array([len(x)])})


def recognizer(folder: Path, options: Options) -> Callable[[Any], Any]:
    """samples (n,) -> what sherpa-onnx makes of them, greedy or over the graph."""
    from asrcompress.runtimes import sherpa_onnx

    if not folder.is_dir():
        raise UserError(f"sherpa-onnx needs a folder with model.onnx and tokens.txt, and {folder} is none")
    found = sherpa_onnx.recognizer(folder, options.graph, threads=options.threads)
    return lambda samples: sherpa_onnx.transcribe(found, [("noise", samples, RATE)])


def chunks(run: Callable[[Any], Any]) -> dict[str, float]:
    """Percentiles of the time of one call on a chunk with context on both sides."""
    x = speech(CHUNK + 2 * CONTEXT)
    times = [clock(run, x) for _ in range(CHUNKS + 5)][5:]
    p50, p95, p99 = np.percentile(times, (50, 95, 99)) * 1000
    return {"chunk_p50_ms": round(p50, 3), "chunk_p95_ms": round(p95, 3), "chunk_p99_ms": round(p99, 3)}


def clock(run: Callable[[Any], Any], x: Any) -> float:
    """Wall-clock seconds of `run(x)`."""
    start = time.perf_counter()
    run(x)
    return time.perf_counter() - start


def speech(seconds: float) -> np.ndarray[Any, Any]:
    """Random features (frames, 80) in the range of log-mel energies."""
    shape = round(seconds * FRAMES_PER_SECOND), FEATURES
    return np.random.default_rng(0).normal(-8, 4, shape).astype(np.float32)


def noise(seconds: float) -> np.ndarray[Any, Any]:
    """Quiet white noise."""
    return (0.02 * np.random.default_rng(0).standard_normal(round(seconds * RATE))).astype(np.float32)


def version(runtime: str) -> str:
    """Of an installed runtime; UserError where it is missing."""
    import importlib

    try:
        return str(importlib.import_module(runtime.replace("-", "_")).__version__)
    except ImportError:
        raise UserError(f"{runtime} is not installed; `pip install {runtime}`") from None


def macs_per_second(path: Path, seconds: int = 20) -> int:
    """Multiply-adds of the matrix products and convolutions of an ONNX file for one second of audio.

    Counted in one run without optimisation, from the shapes that values have there; products whose operands do not
    depend on the input (weights made again at load) count too, spread over the seconds.
    """
    from asrcompress.measure import onnx_macs

    return round(onnx_macs.macs(path, {"x": speech(seconds)[None], "x_lens": np.array([seconds * 100])}) / seconds)
