"""How long a loaded model takes, alone or in turns with another, and how much memory its process has held.

Nothing here imports torch: of what a measuring process holds, only Python, numpy and the runtime are not the model's.
"""

import importlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from asrcompress.errors import UserError
from asrcompress.measure import machine

Run = Callable[[], Any]  # one run over one utterance
Array = np.ndarray[Any, Any]
REPEATS = 5  # runs of which the median counts
ROUNDS, RESAMPLES = 30, 2000  # of runs in turns, and of the bootstrap over them


def alone(runtime: str, ready: Callable[[], tuple[Run, float | None]], threads: int) -> dict[str, Any]:
    """Load a file with `ready`, run it, and say what that took.

    `ready` gives a run, and over how many seconds of audio it is, None where that is no speech.

    load_seconds    until the runtime is ready: reading, optimizing the graph and, where there is one, reading HLG.fst
    rtf             seconds of computing per second of audio, the median of 5 runs after one that does not count;
                    without speech `forward_seconds`, those of one run
    peak_rss_bytes  of the whole process; `rss_before_load_bytes` of them are Python, numpy and the runtime
    Errors: UserError where the runtime is not installed.
    """
    installed = version(runtime)  # imported, so that its own memory counts as there before the model
    before, start = machine.peak_rss(), time.perf_counter()
    run, seconds = ready()
    loaded, took = time.perf_counter() - start, median_seconds(run)
    speed = {"rtf": round(took / seconds, 6)} if seconds else {"forward_seconds": round(took, 6)}
    return {"load_seconds": round(loaded, 4), **speed,
            "peak_rss_bytes": machine.peak_rss(), "rss_before_load_bytes": before, "threads": threads,
            "cpu": machine.cpu(), "cpu_flags": machine.cpu_flags(), "runtime": runtime, "runtime_version": installed}


def median_seconds(run: Run, repeats: int = REPEATS) -> float:
    """Median wall-clock seconds of `run()`, after one that does not count."""
    return statistics.median([clock(run) for _ in range(repeats + 1)][1:])


def clock(run: Run) -> float:
    """Wall-clock seconds of `run()`."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def in_turns(dense: Run, this: Run) -> dict[str, Any]:
    """Dense, this, dense, this, ... over one utterance: how many times faster this is, and the 95 % interval of that.

    The ratio of the medians of 30 rounds after two that do not count; the interval is a bootstrap over rounds, so that
    what slows down the machine for a while slows down both.
    """
    times = np.array([[clock(dense), clock(this)] for _ in range(ROUNDS + 2)])[2:]
    low, high = interval(times)
    return {"speedup": round(float(ratio_of_medians(times)), 4), "speedup_ci95": [round(low, 4), round(high, 4)]}


def ratio_of_medians(times: Array) -> Any:
    """(..., rounds, 2) -> (...): the first column's median over the second's."""
    medians = np.median(times, axis=-2)
    return medians[..., 0] / medians[..., 1]


def interval(times: Array) -> tuple[float, float]:
    """The 95 % interval of `ratio_of_medians` when whole rounds (rounds, 2) are drawn again with replacement."""
    drawn = np.random.default_rng(0).integers(len(times), size=(RESAMPLES, len(times)))
    low, high = np.percentile(ratio_of_medians(times[drawn]), (2.5, 97.5))
    return float(low), float(high)


def version(runtime: str) -> str:
    """Of an installed runtime. Errors: UserError where it is missing."""
    try:
        return str(importlib.import_module(runtime.replace("-", "_")).__version__)
    except ImportError:
        raise UserError(f"{runtime} is not installed; `pip install {runtime}`") from None
