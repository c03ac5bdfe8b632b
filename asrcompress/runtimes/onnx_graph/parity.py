"""Parity: torch and onnxruntime give the same numbers, or the first layer that does not is named."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from asrcompress.compression.packed.verify import jumps
from asrcompress.compression.parametrization import copy_model
from asrcompress.errors import UserError
from asrcompress.runtimes.onnx_graph.session import session

# By how weights are stored: the largest difference of log-probabilities, or for quantized files the largest share of
# frames with another best token, which the mean Kullback-Leibler divergence, in nats, has to stay under as well.
TOLERANCES = {"float32": 1e-3, "float16": 0.2, "int8-dynamic": 0.05, "int8-static": 0.05, "int4": 0.15,
              "codebook": 0.15}
Batch = tuple[Tensor, Tensor]


def agreement(model: nn.Module, proto: onnx.ModelProto, batches: Sequence[Batch], precision: str,
              tolerance: float | None = None, scale: float = 1.0) -> str:
    """`check` of a float file or `check_quantized` of another, in words. `tolerance`: that of `TOLERANCES` for None."""
    model = copy_model(model).cpu().float().eval()  # what was exported; the caller's may be in training, or half
    most = TOLERANCES[precision] if tolerance is None else tolerance
    if precision in ("float32", "float16"):
        mean = " on average" if jumps(model) else ""
        return f"log-probabilities equal within {check(model, proto, batches, most, scale):.1e}{mean}"
    other, divergence = check_quantized(model, proto, batches, most, scale)
    return f"the best token of {100 * (1 - other):.2f} % of the frames, divergence {divergence:.1e} nats,"


def check(model: nn.Module, proto: onnx.ModelProto, batches: Sequence[Batch], tolerance: float,
          scale: float = 1.0) -> float:
    """The largest difference of log-probabilities inside the utterances; a UserError where it is above `tolerance`.

    Of a model whose functions jump it is the mean: where a value lies at a jump, rounding decides on its side.
    `scale` is what the ONNX model multiplies log-probabilities by.
    """
    largest = 0.0
    for batch, (found, expected) in zip(batches, _compared(model, proto, batches, scale), strict=True):
        error = gap(found, expected, jumps(model))
        if not error <= tolerance:
            where = first_difference(model, proto, batch, tolerance)
            raise UserError(f"the ONNX model's log-probabilities differ from torch's by {error:.3g}, more than "
                            f"{tolerance:g}; {where}; nothing was written")
        largest = max(largest, error)
    return largest


def gap(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], mean: bool) -> float:
    """The largest, or the mean, difference of two arrays; 0 of empty ones."""
    gaps = np.abs(found - expected)
    return float(gaps.mean() if mean else gaps.max()) if gaps.size else 0.0


def check_quantized(model: nn.Module, proto: onnx.ModelProto, batches: Sequence[Batch], tolerance: float,
                    scale: float = 1.0) -> tuple[float, float]:
    """(share of frames with another best token than torch's, mean divergence from torch in nats), both at most
    `tolerance`, otherwise a UserError that names the layer whose output is furthest from torch's."""
    pairs = list(_compared(model, proto, batches, scale))
    found, expected = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    other, divergence = distance(found, expected)
    if not max(other, divergence) <= tolerance:
        errors = layer_errors(model, proto, batches[0])
        steps = {path: error - before for (path, error), before in
                 zip(errors.items(), [0.0, *errors.values()], strict=False)}
        worst = max(steps, key=steps.__getitem__)
        raise UserError(f"{100 * other:.1f} % of the frames have another best token than torch's and the divergence is "
                        f"{divergence:.3g} nats, and {100 * tolerance:g} % and {tolerance:g} are the most; the error "
                        f"grows most at layer {worst}, to {errors[worst]:.3g} of its largest number; keep it in float "
                        "with --keep-float, or take another precision; nothing was written")
    return other, divergence


def distance(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Log-probabilities (frames, vocab) -> share of frames with another best token, mean KL(expected || found)."""
    other = float((found.argmax(1) != expected.argmax(1)).mean())
    return other, float((np.exp(expected) * (expected - found)).sum(1).mean())


def _compared(model: nn.Module, proto: onnx.ModelProto, batches: Sequence[Batch],
              scale: float) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Of each batch the log-probabilities (frames, vocab) inside the utterances, those found and those expected."""
    running = session(proto.SerializeToString())
    for x, lens in batches:
        with torch.inference_mode():
            expected, expected_lens = model(x, lens)
        found, found_lens = running.run(None, {"x": x.numpy(), "x_lens": lens.numpy()})
        if found.shape != tuple(expected.shape) or found_lens.tolist() != expected_lens.tolist():
            raise UserError(f"the ONNX model gives frames {found_lens.tolist()} of {found.shape}, and torch "
                            f"{expected_lens.tolist()} of {tuple(expected.shape)}; nothing was written")
        inside = (torch.arange(expected.shape[1]) < expected_lens[:, None]).numpy()
        yield found[inside] / scale, expected.numpy()[inside]


def first_difference(model: nn.Module, proto: onnx.ModelProto, batch: Batch, tolerance: float) -> str:
    """Which layer is the first whose output differs by more than `tolerance`, relative to its largest number."""
    for path, error in layer_errors(model, proto, batch).items():
        if not error <= tolerance:
            return f"the first layer that differs is {path}, by {error:.3g} of its largest number"
    return "every layer before the last step agrees"


def layer_errors(model: nn.Module, proto: onnx.ModelProto, batch: Batch) -> dict[str, float]:
    """How much the output of each layer differs from torch's, relative to its largest number, in order."""
    expected = layer_outputs(model, batch)
    errors = {}
    for path, values in onnx_outputs(proto, list(expected), batch).items():
        wanted = expected[path] if expected[path].shape == values.shape else expected[path].transpose(0, 2, 1)
        errors[path] = float(np.abs(values - wanted).max()) / max(1.0, float(np.abs(wanted).max()))
    return errors


def layer_outputs(model: nn.Module, batch: Batch) -> dict[str, np.ndarray[Any, Any]]:
    """Output arrays of every module of the torch model, by path, in the order of computing."""
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


def random_batches(batch1: bool, features: int = 80) -> list[Batch]:
    """Seeded features of three lengths: one padded batch, or one utterance a batch."""
    lengths = (203, 150, 97)
    x = 4 * torch.randn(3, lengths[0], features, generator=torch.Generator().manual_seed(0)) - 8
    if not batch1:
        return [(x, torch.tensor(lengths))]
    return [(x[i: i + 1, :length], torch.tensor([length])) for i, length in enumerate(lengths)]


def real_batches(data: Path, name: str, batch1: bool, count: int = 8) -> list[Batch]:
    """Stored features of `count` utterances of a prepared set, spread over it."""
    from lhotse import CutSet
    from lhotse.dataset.collation import collate_features

    chosen = _spread(data, name, count)
    groups = [[cut] for cut in chosen] if batch1 else [chosen]
    return [(x, lens.long()) for x, lens in (collate_features(CutSet.from_cuts(group)) for group in groups)]


def utterances(data: Path, name: str, minutes: float = math.inf) -> dict[str, Batch]:
    """Stored features of about so many minutes of a prepared set, spread over it, by the ids of the transcripts."""
    cuts = _spread(data, name)
    seconds = sum(cut.duration for cut in cuts)
    if minutes * 60 < seconds:
        cuts = _spread(data, name, max(1, round(len(cuts) * minutes * 60 / seconds)))
    features = {cut.supervisions[0].id: torch.from_numpy(cut.load_features()).float()[None] for cut in cuts}
    return {utt: (x, torch.tensor([x.shape[1]])) for utt, x in features.items()}


def _spread(data: Path, name: str, count: int = 0) -> list[Any]:
    from lhotse import load_manifest

    from asrcompress.files import require_file

    cuts = list(load_manifest(require_file(data / f"{name}.jsonl.gz", "the prepared set")))
    return cuts[:: max(1, len(cuts) // count)][:count] if count else cuts
