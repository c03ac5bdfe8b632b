"""Speed and memory of a packed model, measured in a process that does nothing else."""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import asrcompress
from asrcompress.errors import UserError
from asrcompress.files import require_file
from asrcompress.measure import machine

REPEATS = 5
PREFIX = "asrcompress measure: "  # before every sentence that the command says about bad input


def in_fresh_process(path: Path | str, threads: int = 1, seconds: int = 20) -> dict[str, Any]:
    """`in_this_process`, run by a new Python: memory that this one used does not count."""
    return in_fresh_python([str(require_file(path, "the packed model")), "--seconds", str(seconds)], threads)


def in_fresh_python(arguments: list[str], threads: int) -> dict[str, Any]:
    """What `asrcompress measure ARGUMENTS --json --here` says in a new Python; its UserErrors become ours."""
    command = [sys.executable, "-m", "asrcompress.cli", "measure", *arguments, "--json", "--here",
               "--threads", str(threads)]
    paths = [str(Path(asrcompress.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths),
                   "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    said = done.stderr.strip().splitlines()[-1:]
    if done.returncode == 1 and said and said[0].startswith(PREFIX):
        raise UserError(said[0].removeprefix(PREFIX))
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout)


def in_this_process(path: Path | str, threads: int = 1, seconds: int = 20) -> dict[str, Any]:
    """Load a packed model and measure it: the keys of a result row that belong to the model alone.

    rtf             seconds of computing per second of audio: the torch forward, one utterance, the median of 5 runs
    load_seconds    reading, verifying and rebuilding the model from its file
    peak_rss_bytes  of the whole process; `rss_before_load_bytes` of them are Python and torch
    """
    import torch

    from asrcompress import compression
    from asrcompress.measure import macs, size

    if not compression.packed.is_packed(path):
        raise UserError(f"{path} is not a packed model; make one with `asrcompress packed save` and measure that")
    torch.set_num_threads(threads)
    before, start = machine.peak_rss(), time.perf_counter()
    model = compression.load(path).eval()
    loaded = time.perf_counter() - start
    rtf = forward_seconds(model, *macs.speech(model, seconds * macs.FRAMES_PER_SECOND)) / seconds
    peak = machine.peak_rss()  # before counting, which may rebuild dense weights
    return {**size.of_file(path), **size.numbers(model), "macs_per_second": macs.macs_per_second(model),
            "rtf": round(rtf, 6), "load_seconds": round(loaded, 4), "peak_rss_bytes": peak,
            "rss_before_load_bytes": before, "threads": threads, "cpu": machine.cpu(), "runtime": "torch"}


def forward_seconds(model: Any, *inputs: Any, repeats: int = REPEATS) -> float:
    """Median wall-clock seconds of `model(*inputs)`, after one run that is not counted."""
    import torch

    times = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            start = time.perf_counter()
            model(*inputs)
            times.append(time.perf_counter() - start)
    return statistics.median(times[1:])
