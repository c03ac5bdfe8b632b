"""measure: what a model costs, in bytes, multiply-adds, seconds and memory."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asrcompress.runtimes.base import Timing

if TYPE_CHECKING:
    from torch import nn


def measure(model: "nn.Module | Path | str", inputs: Any = None, *, runtime: str = "onnxruntime", threads: int = 1,
            seconds: int = 20, graph: Path | None = None, against: Path | None = None) -> dict[str, Any]:
    """The keys of a result row that belong to a model alone, compressed or not.

    `model`: a torch module, which is measured in this process; or the path of a packed file or a device file, which is
    measured in a process of its own. `inputs`: what the model takes (a tensor, arguments, a mapping, or an .npz file),
    where it does not know it itself; then `macs` and `forward_seconds` of one call take the place of `macs_per_second`
    and `rtf`. `seconds`: the length of the random utterance otherwise. `runtime`, `graph` and `against` (a file that is
    timed in turns with this one) are for device files. Errors: UserError for a file that cannot be measured, and for a
    model whose inputs are not known.
    """
    from asrcompress.measure import device, speed

    if not isinstance(model, str | Path):
        return speed.of_model(model, threads, seconds, inputs)
    with tempfile.TemporaryDirectory() as folder:
        file = _as_file(inputs, Path(folder, "inputs.npz"))
        if device.is_device_file(model):
            return device.measure(model, runtime, Timing(threads, seconds, graph, against, file))
        return speed.in_fresh_process(model, threads, seconds, file)


def _as_file(inputs: Any, path: Path) -> Path | None:
    """Inputs as an .npz file: theirs, or one written at `path`."""
    if inputs is None or isinstance(inputs, str | Path):
        return None if inputs is None else Path(inputs)
    import numpy as np

    if isinstance(inputs, dict):
        np.savez(path, **inputs)
    else:
        np.savez(path, *(inputs if isinstance(inputs, list | tuple) else [inputs]))
    return path
