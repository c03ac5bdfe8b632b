"""The file in which a byte budget keeps what it measured, so that a run that was stopped goes on there."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from asrcompress.compression.choices import Way


@dataclass(frozen=True)
class Measured:
    """A way to store a part: what a coder makes of it, and its damage at a scale of 1."""

    way: Way
    bytes: int
    damage: float


class Cache:
    """A file of JSON lines: the digest of what the table is of, then a part of it on each; nothing without a path."""

    def __init__(self, path: Path | None, of: str) -> None:
        self.path, self.found = path, dict[str, list[Measured]]()
        if path is None:
            return
        first = {"table": of}
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        if not lines or lines[0] != json.dumps(first) + "\n":
            path.write_text(json.dumps(first) + "\n", encoding="utf-8")
            return
        whole = [line for line in lines if line.endswith("\n")]  # a run that was stopped may have left half a line
        path.write_text("".join(whole), encoding="utf-8")
        for line in map(json.loads, whole[1:]):
            self.found[line["part"]] = [Measured(Way(*one[0]), *one[1:]) for one in line["ways"]]

    def add(self, part: str, ways: list[Measured]) -> None:
        """Keep the ways of a part."""
        self.found[part] = ways
        if self.path is not None:
            rows = [[[one.way.structure, one.way.size, one.way.quantization, one.way.options], one.bytes, one.damage]
                    for one in ways]
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"part": part, "ways": rows}) + "\n")


def digest(model: nn.Module, rows: Sequence[Tensor], options: object) -> str:
    """Of a model's values, the rows that it says on the calibration data, and what may be chosen."""
    found = hashlib.sha256(repr(options).encode())
    for name, tensor in model.state_dict().items():
        found.update(name.encode() + tensor.cpu().float().numpy().tobytes())
    for one in rows:
        found.update(str(tuple(one.shape)).encode() + one.numpy().tobytes())
    return found.hexdigest()
