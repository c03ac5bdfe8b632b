"""Bytes, multiply-adds, speed and memory of a device file, in the runtimes that devices have.

Speed and memory are those of a Python of their own, which never imports torch: of what it holds, only Python, numpy and
the runtime are not the model's.
"""

from pathlib import Path
from typing import Any

from asrcompress import runtimes
from asrcompress.measure import onnx_macs, speed
from asrcompress.runtimes.base import Timing
from asrcompress.runtimes.onnx_graph.session import example, file_of, is_acoustic, is_whisper, session


def is_device_file(path: Path | str) -> bool:
    """An ONNX file, or a folder: what is measured here, and not as a packed model."""
    return Path(path).is_dir() or Path(path).suffix == ".onnx"


def measure(path: Path | str, runtime: str = "onnxruntime", timing: Timing = Timing()) -> dict[str, Any]:  # noqa: B008
    """Everything that is known of a device file: the keys of a result row that belong to it alone.

    device_bytes                                     of the file; of a Whisper, of its two
    macs_per_second                                  for a second of audio in an utterance of `timing.seconds`; `macs`
                                                     of one run where the model takes no features; not of a
                                                     Whisper, which multiplies as often as it says words
    load_seconds, rtf, chunk_p*_ms, peak_rss_bytes   the runtime's `measure`, in a process for nothing else
    device_ratio, speedup, speedup_ci95              with `timing.against`: its bytes over these; `timing.in_turns`
    Errors: UserError for an unknown runtime and a file that it cannot run.
    """
    runtimes.find(runtime)
    found: dict[str, Any] = {"device_bytes": bytes_of(path)}
    found |= {} if is_whisper(Path(path)) else macs(file_of(path), timing)
    found |= fresh(path, runtime, timing._replace(against=None))
    if timing.against:
        found["device_ratio"] = round(bytes_of(timing.against) / found["device_bytes"], 4)
        found |= fresh(path, runtime, timing)
    return found


def bytes_of(path: Path | str) -> int:
    """Of the ONNX file, or of the two of a Whisper. Errors: UserError where there is none."""
    files = Path(path).glob("*.onnx") if is_whisper(Path(path)) else [file_of(path)]
    return sum(one.stat().st_size for one in files)


def macs(path: Path, timing: Timing = Timing()) -> dict[str, int]:  # noqa: B008
    """`macs_per_second` of an ONNX speech model, `macs` of one run of another; see `onnx_macs.macs`."""
    opened = session(path)
    feeds = example(opened, timing.seconds, timing.inputs)
    total = onnx_macs.macs(path, feeds)
    if is_acoustic(opened) and timing.inputs is None:
        return {"macs_per_second": round(total / timing.seconds)}
    return {"macs": total}


def fresh(path: Path | str, runtime: str, timing: Timing) -> dict[str, Any]:
    """`here`, in a new Python."""
    arguments = [str(path), "--runtime", runtime, "--seconds", str(timing.seconds)]
    for name in ("graph", "against", "inputs"):
        value = getattr(timing, name)
        arguments += [f"--{name}", str(value)] if value else []
    return speed.in_fresh_python(arguments, timing.threads)


def here(path: Path | str, runtime: str, timing: Timing) -> dict[str, Any]:
    """What the runtime measures of a file, in this process."""
    return runtimes.find(runtime).measure(Path(path), timing)
