"""onnxruntime on the CPU. Nothing here imports torch: a process that measures a device file is to hold no more than a
device does."""

from pathlib import Path
from typing import TYPE_CHECKING

from asrcompress.errors import UserError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def session(model: bytes | Path | str, threads: int = 1) -> "InferenceSession":
    """A quiet session of a serialised model or a file; UserError where onnxruntime cannot load it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 4
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no other base
        what = "the model" if isinstance(model, bytes) else model
        raise UserError(f"onnxruntime cannot load {what}: {' '.join(str(error).split())}") from None


def acoustic_model(path: Path | str, threads: int = 1) -> "InferenceSession":
    """The session of a file of `asrcompress export`; UserError where it is another."""
    opened = session(path, threads)
    if opened.get_modelmeta().custom_metadata_map.get("model_type") != "zipformer2_ctc":
        raise UserError(f"{path} is not an acoustic model that `asrcompress export` wrote; export it again")
    return opened
