"""Parity: torch and onnxruntime give the same numbers, or the first layer that does not is named."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from asrcompress.errors import UserError

TOLERANCES = {"float32": 1e-3, "float16": 0.2}  # of log-probabilities, by how weights are stored
Batch = tuple[Tensor, Tensor]


def session(model: bytes | Path | str, threads: int = 1) -> onnxruntime.InferenceSession:
    """onnxruntime on the CPU, quiet; UserError where it cannot load the file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 4
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no other base
        what = "the model" if isinstance(model, bytes) else model
        raise UserError(f"onnxruntime cannot load {what}: {' '.join(str(error).split())}") from None


def check(model: nn.Module, proto: onnx.ModelProto, batches: Sequence[Batch], tolerance: float,
          scale: float = 1.0) -> float:
    """The largest difference of log-probabilities inside the utterances; a UserError where it is above `tolerance`.

    `scale` is what the ONNX model multiplies log-probabilities by.
    """
    running, largest = session(proto.SerializeToString()), 0.0
    for x, lens in batches:
        with torch.inference_mode():
            expected, expected_lens = model(x, lens)
        found, found_lens = running.run(None, {"x": x.numpy(), "x_lens": lens.numpy()})
        if found.shape != tuple(expected.shape) or found_lens.tolist() != expected_lens.tolist():
            raise UserError(f"the ONNX model gives frames {found_lens.tolist()} of {found.shape}, and torch "
                            f"{expected_lens.tolist()} of {tuple(expected.shape)}; nothing was written")
        inside = (torch.arange(expected.shape[1]) < expected_lens[:, None]).numpy()
        error = float(np.abs(found / scale - expected.numpy())[inside].max())
        if not error <= tolerance:
            where = first_difference(model, proto, (x, lens), tolerance)
            raise UserError(f"the ONNX model's log-probabilities differ from torch's by {error:.3g}, more than "
                            f"{tolerance:g}; {where}; nothing was written")
        largest = max(largest, error)
    return largest


def first_difference(model: nn.Module, proto: onnx.ModelProto, batch: Batch, tolerance: float) -> str:
    """Which layer is the first whose output differs by more than `tolerance`, relative to its largest number."""
    expected = layer_outputs(model, batch)
    found = onnx_outputs(proto, list(expected), batch)
    for path, values in found.items():
        wanted = expected[path] if expected[path].shape == values.shape else expected[path].transpose(0, 2, 1)
        error = float(np.abs(values - wanted).max()) / max(1.0, float(np.abs(wanted).max()))
        if not error <= tolerance:
            return f"the first layer that differs is {path}, by {error:.3g} of its largest number"
    return "every layer before the last step agrees"


def layer_outputs(model: nn.Module, batch: Batch) -> dict[str, np.ndarray[Any, Any]]:
    """What every module of the torch model puts out, by path, in the order of computing."""
    outputs: dict[str, np.ndarray[Any, Any]] = {}

    def keep(path: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                outputs[path] = output.numpy()
        return hook

    handles = [module.register_forward_hook(keep(path)) for path, module in model.named_modules() if path]
    try:
        with torch.inference_mode():
            model(*batch)
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def onnx_outputs(proto: onnx.ModelProto, names: Sequence[str], batch: Batch) -> dict[str, np.ndarray[Any, Any]]:
    """The values of these names that the ONNX model has, in the order of its nodes."""
    wanted = [name for node in proto.graph.node for name in node.output if name in set(names)]
    larger = onnx.ModelProto.FromString(proto.SerializeToString())
    larger.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    x, lens = batch
    values = session(larger.SerializeToString()).run(wanted, {"x": x.numpy(), "x_lens": lens.numpy()})
    return dict(zip(wanted, values, strict=True))


def random_batches(batch1: bool) -> list[Batch]:
    """Seeded features of three lengths: one padded batch, or one utterance a batch."""
    lengths = (203, 150, 97)
    x = 4 * torch.randn(3, lengths[0], 80, generator=torch.Generator().manual_seed(0)) - 8
    if not batch1:
        return [(x, torch.tensor(lengths))]
    return [(x[i: i + 1, :length], torch.tensor([length])) for i, length in enumerate(lengths)]


def real_batches(data: Path, name: str, batch1: bool, count: int = 8) -> list[Batch]:
    """Stored features of `count` utterances of a prepared set, spread over it."""
    from lhotse import CutSet, load_manifest
    from lhotse.dataset.collation import collate_features

    from asrcompress.files import existing

    cuts = list(load_manifest(existing(data / f"{name}.jsonl.gz", "the prepared set")))
    chosen = cuts[:: max(1, len(cuts) // count)][:count]
    groups = [[cut] for cut in chosen] if batch1 else [chosen]
    return [(x, lens.long()) for x, lens in (collate_features(CutSet.from_cuts(group)) for group in groups)]
