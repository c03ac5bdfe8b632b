"""Files of a few bytes that ask for memory without end: each is one sentence before the memory is taken."""

import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asrcompress.compression import coders, load, packed
from asrcompress.compression.packed import container

MEGABYTES = 16
Part = tuple[str, NDArray[Any] | bytes, Sequence[int]]  # key, floats or the stream of a coder, shape


class Weight(nn.Module):
    def __init__(self, shape: tuple[int, ...], reads_values: bool = False) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(shape))
        self.steps = [step.item() for step in torch.linspace(0, 1, 3)] if reads_values else []  # "meta" has none

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w


def entry(name: str, kind: str, shape: Sequence[int], spec: dict[str, Any], parts: Sequence[Part],
          ) -> tuple[dict[str, Any], bytes]:
    streams = [part if isinstance(part, bytes) else part.astype("<f4").tobytes() for _, part, _ in parts]
    rows = [{"key": key, "type": "integers" if isinstance(part, bytes) else "float32", "shape": list(shape),
             "length": len(stream)} for (key, part, shape), stream in zip(parts, streams, strict=True)]
    return {"name": name, "shape": list(shape), "quantization": kind, "coder": "raw", "spec": spec, "parts": rows,
            "length": sum(map(len, streams))}, b"".join(streams)


def write(path: Path, entries: Sequence[tuple[dict[str, Any], bytes]], record: dict[str, Any]) -> None:
    offset, table = 0, []
    for row, stream in entries:
        table.append({**row, "offset": offset})
        offset += len(stream)
    header = {"model": {"adapter": "callable", "class": "Weight", "config": {}}, "record": {"layers": {}, **record},
              "tensors": table}
    container.write(path, json.dumps(header).encode(), [stream for _, stream in entries])


def same(*shape: int) -> tuple[bytes, tuple[int, ...]]:
    """The stream of equal symbols of any shape, which take no bytes."""
    return coders.encode("raw", np.zeros(1, np.int64)), shape


def codes(*shape: int) -> Part:
    return "codes", *same(*shape)


def ones(key: str, *shape: int) -> Part:
    return key, np.ones(shape), shape


def constant(name: str, *shape: int) -> tuple[dict[str, Any], bytes]:
    """A tensor of any shape in a few bytes."""
    return entry(name, "codebook", shape, {"zero": False}, [ones("codebook", 1), codes(*shape)])


class Crafted(NamedTuple):
    """A file, the weight of the model that it is said to be for, and what is said of it."""

    entries: list[tuple[dict[str, Any], bytes]]
    said: str
    shape: tuple[int, ...] = (8, 8)
    record: dict[str, Any] = {}
    reads_values: bool = False


INT8, CODEBOOK, LARGE = {"size": 8}, {"zero": False}, 2**22
HASHED = {"structure": "hashed", "shape": [2048, 2048], "buckets": 1, "seed": 0, "balanced": True, "sign": True,
          "hash": "splitmix64-1"}
FILES = {
    "steps of epr": Crafted([entry("w", "epr", (8, 8), {}, [ones("steps", 3000), codes(8, 8)])],
                            r"its steps has shape \(3000,\), not \(1,\)"),
    "base of int8": Crafted([entry("w", "int8", (8, 8), INT8, [
        ones("scale", 5000, 1), ones("base", 5000), codes(8, 8)])], r"its base has shape \(5000,\), not"),
    "scale of int8": Crafted([entry("w", "int8", (8, 8), INT8, [
        ones("scale", 8, 8), ones("base", 1), codes(8, 8)])], r"its scale has shape \(8, 8\), not \(8, 1\)"),
    "step of trellis": Crafted([entry("w", "trellis", (8, 8), {}, [ones("step", 65_000, 1, 1), codes(8, 8)])],
                               "its step has shape"),
    "rows of a codebook": Crafted([entry("w", "codebook", (8, 8), CODEBOOK, [ones("codebook", 1, 500), codes(60_000)])],
                                  "its codebook has shape"),
    "row_scale": Crafted([entry("w", "codebook", (1, 512), CODEBOOK, [
        ones("codebook", 1), codes(1, 512), ones("row_scale", 20_000)])],
        r"\(20000,\) scales for the rows of \(1, 512\)", (1, 512)),
    "many parts": Crafted([entry("w", "codebook", (8, 8), CODEBOOK, [
        ones("codebook", 1), *((f"codes{n}", *same(2**16)) for n in range(100))])], "more symbols in its parts than"),
    "no meta": Crafted([constant("w", LARGE, 8)], "its tensors are not those of the model", reads_values=True),
    "hashed": Crafted([constant("w", 8, 8)], r"layer 'w' has shape \(8, 8\), but its hashed has \(2048, 2048\)",
                      record={"layers": {"w": HASHED}}),
    "cp": Crafted([constant("parametrizations.w.0.structure.left", 8, LARGE),
                   constant("parametrizations.w.0.structure.right", LARGE, 8)],
                  "its structures have 67108864 parameters, for weights of 64 values",
                  record={"layers": {"w": {"structure": "cp", "shape": [8, 8], "rank": LARGE}}}),
    "a quantizer": Crafted([constant("w", 8, 8)], r"it has shape \[8, 8\], and its quantizer \[1, 1, 3000\]",
                           record={"quantization": {"w": {"quantization": "epr", "shape": [1, 1, 3000]}}})}


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_a_few_bytes_take_little_memory(file: Crafted, tmp_path: Path) -> None:
    write(tmp_path / "x", file.entries, file.record)

    def refused() -> None:
        with pytest.raises(packed.PackedError, match=file.said):
            load(tmp_path / "x", lambda config: Weight(file.shape, file.reads_values))

    refused()  # what torch loads the first time counts for nothing
    tracemalloc.start()
    try:
        refused()
        assert tracemalloc.get_traced_memory()[1] < 2**20 * MEGABYTES
    finally:
        tracemalloc.stop()


def test_what_has_the_shape_of_the_model_is_read(tmp_path: Path) -> None:
    write(tmp_path / "x", [constant("w", 8, 8)], {})
    assert torch.equal(load(tmp_path / "x", lambda config: Weight((8, 8), True)).w, torch.ones(8, 8))
