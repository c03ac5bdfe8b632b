"""onnxruntime on the CPU. Nothing here imports torch: a process that measures a device file is to hold no more than a
device does."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asrcompress.errors import UserError
from asrcompress.files import read_npz, require_file

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Array = np.ndarray[Any, Any]
FRAMES_PER_SECOND = 100
OURS = {"x", "x_lens"}  # the inputs of an acoustic model: features (N, T, features), and how many frames (N,)
DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64,
          "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_}


def session(model: bytes | Path | str, threads: int = 1, optimize: bool = True) -> "InferenceSession":
    """A quiet session of a serialized model or a file, with `threads`; `optimize=False` leaves the graph as it is.

    Errors: UserError where onnxruntime is missing or cannot load it.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError("onnxruntime is not installed; `pip install onnxruntime`") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 4
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no other base
        what = "the model" if isinstance(model, bytes) else model
        raise UserError(f"onnxruntime cannot load {what}: {' '.join(str(error).split())}; export it again") from None


def file_of(path: Path | str) -> Path:
    """The ONNX file of a device folder, or the file itself. Errors: UserError where there is none, and for a
    Whisper, which has two."""
    path = require_file(path, "the device file")
    if is_whisper(path):
        raise UserError(f"{path} is a Whisper, whose two networks onnxruntime does not run by itself; take --runtime "
                        "sherpa-onnx")
    return require_file(path / "model.onnx", "the device model") if path.is_dir() else path


def is_whisper(path: Path) -> bool:
    """Whether a folder holds a Whisper, which has an encoder."""
    return (path / "encoder.onnx").exists()


def run(opened: "InferenceSession", names: list[str] | None, feeds: dict[str, Array]) -> list[Array]:
    """The outputs of these names, all for None. Errors: UserError where onnxruntime stops."""
    try:
        return opened.run(names, feeds)
    except Exception as error:
        raise UserError(f"onnxruntime cannot run the model on inputs of {shapes(feeds)}: "
                        f"{' '.join(str(error).split())}") from None


def shapes(feeds: dict[str, Array]) -> str:
    """The shapes of some arrays in words: "x (1, 100, 80) float32"."""
    return ", ".join(f"{name} {array.shape} {array.dtype}" for name, array in feeds.items())


def is_acoustic(opened: "InferenceSession") -> bool:
    """Whether a file takes features and their lengths, as our acoustic models do."""
    return {one.name for one in opened.get_inputs()} == OURS


def speech(frames: int, features: int = 80) -> Array:
    """Random features (frames, features), float32, in the range of log-mel energies."""
    return np.random.default_rng(0).normal(-8, 4, (frames, features)).astype(np.float32)


def example(opened: "InferenceSession", seconds: float, given: Path | None = None) -> dict[str, Array]:
    """What a file is timed on: the arrays of `given` (.npz, by the inputs' names), or one utterance of random features,
    or random numbers of the shapes that the file says. Errors: UserError where none of these fits."""
    inputs = opened.get_inputs()
    if given is not None:
        return _given(given, [one.name for one in inputs])
    if is_acoustic(opened):
        features = next(one.shape[2] for one in inputs if one.name == "x")
        x = speech(round(seconds * FRAMES_PER_SECOND), features)[None]
        return {"x": x, "x_lens": np.array([x.shape[1]])}
    found: dict[str, Array] = {}
    for one in inputs:
        if not all(isinstance(size, int) for size in one.shape) or one.type not in DTYPES:
            raise UserError(f"the model's input '{one.name}' is {one.type} of shape {one.shape}, which leaves open "
                            "what to run it on; give --inputs FILE.npz with an array for each input")
        numbers = np.random.default_rng(0).standard_normal(one.shape)
        found[one.name] = (numbers if "float" in one.type or "double" in one.type else np.ones(one.shape)).astype(
            DTYPES[one.type])
    return found


def _given(path: Path, names: list[str]) -> dict[str, Array]:
    found = read_npz(path, "the inputs")
    if set(found) == {f"arr_{i}" for i in range(len(names))}:
        return {name: found[f"arr_{i}"] for i, name in enumerate(names)}
    if set(found) != set(names):
        raise UserError(f"{path} holds {', '.join(found)}, and the model takes {', '.join(names)}")
    return found
