"""Speed and memory of a packed model, measured in a process that does nothing else."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asrcompress
from asrcompress.errors import UserError
from asrcompress.files import require_file
from asrcompress.measure import machine, timing
from asrcompress.processes import die_with_parent

if TYPE_CHECKING:
    from torch import nn

PREFIX = "asrcompress measure: "  # before every sentence that the command says about bad input


def in_fresh_process(path: Path | str, threads: int = 1, seconds: int = 20,
                     inputs: Path | None = None) -> dict[str, Any]:
    """`in_this_process`, run by a new Python: memory that this one used does not count. `inputs`: an .npz file."""
    arguments = [str(require_file(path, "the packed model")), "--seconds", str(seconds)]
    return in_fresh_python(arguments + (["--inputs", str(inputs)] if inputs else []), threads)


def in_fresh_python(arguments: list[str], threads: int) -> dict[str, Any]:
    """What `asrcompress measure ARGUMENTS --json --here` says in a new Python.

    Errors: its UserErrors, and RuntimeError where it ends in another way.
    """
    command = [sys.executable, "-m", "asrcompress.cli", "measure", *arguments, "--json", "--here",
               "--threads", str(threads)]
    paths = [str(Path(asrcompress.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths),
                   "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, preexec_fn=die_with_parent)
    said = done.stderr.strip().splitlines()[-1:]
    if done.returncode == 1 and said and said[0].startswith(PREFIX):
        raise UserError(said[0].removeprefix(PREFIX))
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout)


def in_this_process(path: Path | str, threads: int = 1, seconds: int = 20,
                    inputs: Path | None = None) -> dict[str, Any]:
    """Load a packed model and measure it: `of_model`, and

    packed_bytes    of the file
    load_seconds    reading, verifying and rebuilding the model from its file
    peak_rss_bytes  of the whole process; `rss_before_load_bytes` of them are Python and torch
    Errors: UserError for a file that is no packed model, or damaged.
    """
    import torch  # noqa: F401, its memory counts as there before the model

    from asrcompress import compression
    from asrcompress.measure import size

    if not compression.packed.is_packed(path):
        raise UserError(f"{path} is not a packed model; make one with `asrcompress packed save` and measure that")
    before, start = machine.peak_rss(), time.perf_counter()
    model = compression.load(path)
    loaded = time.perf_counter() - start
    return {**size.of_file(path), **of_model(model, threads, seconds, inputs), "load_seconds": round(loaded, 4),
            "rss_before_load_bytes": before}


def of_model(model: "nn.Module", threads: int = 1, seconds: int = 20, inputs: Any = None) -> dict[str, Any]:
    """What a torch model costs, in this process: `size.of_model`, `macs_per_second`, and

    rtf             seconds of computing per second of audio: the torch forward, one utterance, the median of 5 runs
    peak_rss_bytes  of the whole process, before multiply-adds were counted, which may rebuild dense weights
    With `inputs` (`measure.inputs.given`) instead of random speech: `macs` and `forward_seconds` of one call.
    Errors: UserError for a model whose inputs are not known.
    """
    import torch

    from asrcompress.compression.calibration import in_eval_mode
    from asrcompress.measure import inputs as examples
    from asrcompress.measure import macs, size

    found = examples.example(model, seconds) if inputs is None else examples.given(model, inputs)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with in_eval_mode(model), torch.inference_mode():
            took = timing.median_seconds(lambda: model(**found.arguments))
    finally:
        torch.set_num_threads(before)
    peak, total = machine.peak_rss(), macs.macs(model, **found.arguments)
    costs = ({"macs_per_second": round(total / found.seconds), "rtf": round(took / found.seconds, 6)} if found.seconds
             else {"macs": total, "forward_seconds": round(took, 6)})
    return {**size.of_model(model), **costs, "peak_rss_bytes": peak, "threads": threads, "cpu": machine.cpu(),
            "runtime": "torch"}
