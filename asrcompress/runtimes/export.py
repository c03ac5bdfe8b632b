"""export: a model as a file for a runtime, written only if the runtime gives torch's outputs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from asrcompress import runtimes
from asrcompress.runtimes.base import Exported

if TYPE_CHECKING:
    from torch import nn


def export(model: "nn.Module", path: Path | str, inputs: Any = None, *, runtime: str = "onnxruntime",
           **options: Any) -> Exported:
    """Write a model, compressed or not, at `path` for a runtime: its `export(model, path, inputs, **options)`.

    onnxruntime: one ONNX file of any model that `torch.onnx.export` takes. `inputs` are what `model(...)` takes: a
    tensor, a sequence of arguments, or a mapping of keyword arguments; models that know their own inputs need none.
    sherpa-onnx: a folder, of a TDNN or Conformer, with `tokens=` the tokens.txt of its lang folder. Layers in short
    chains of products stay so, other structures are rebuilt, and quantized parameters have the values that they stand
    for.
    Errors: UserError for an unknown runtime or option, a model that cannot be exported, and outputs that differ.
    """
    return runtimes.find(runtime).export(model, Path(path), inputs, **options)
