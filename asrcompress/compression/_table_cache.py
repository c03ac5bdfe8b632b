"""The file in which a byte budget keeps what it measured: a run that was stopped goes on there, and another target of
the same model measures nothing."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from asrcompress.errors import UserError


class Cache:
    """JSON values by key, in a file FOLDER/choices-DIGEST.jsonl with a line for each; nothing is kept without a folder.

    `of` is the digest of what the table is of, so that tables of other models, data or choices have files of their own.
    """

    def __init__(self, folder: Path | None, of: str) -> None:
        self.path = folder / f"choices-{of[:16]}.jsonl" if folder else None
        self.found = dict[str, Any]()
        if self.path is None or not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]  # a run that was stopped may have left half a line
        if whole != lines:
            self.path.write_text("".join(whole), encoding="utf-8")
        for number, line in enumerate(whole, 1):
            try:
                key, kept = json.loads(line)
                self.found[str(key)] = kept
            except (ValueError, TypeError):
                raise UserError(f"{self.path}, line {number} is damaged; remove the line, and what it said is measured "
                                "again") from None

    def value(self, key: str, make: Callable[..., Any], *args: Any) -> Any:
        """What is kept under a key, or what `make` says of the arguments, which is kept from then on."""
        if key not in self.found:
            self.found[key] = made = make(*args)
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([key, made]) + "\n")
        return self.found[key]


def digest(model: nn.Module, rows: Sequence[Tensor], options: object) -> str:
    """Of a model's values, the rows that it says on the calibration data, and what may be chosen."""
    found = hashlib.sha256(repr(options).encode())
    for name, tensor in model.state_dict().items():
        found.update(name.encode() + tensor.cpu().float().numpy().tobytes())
    for one in rows:
        found.update(str(tuple(one.shape)).encode() + one.cpu().numpy().tobytes())
    return found.hexdigest()
