"""A stage: a folder, what made it, and a marker that is written last.

The marker `.done` is a JSON object: the options and the inputs of the stage in clear, and a digest of both. A stage
whose marker has the digest that is wanted is skipped. One that differs stops with a sentence that says what changed;
with `redo` its folder is emptied and it is made again. While a stage runs, the same object stands as `.started`: a
stage that was cut off goes on from what it left, unless the options are others.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from asrcompress import files
from asrcompress.errors import UserError

DONE, STARTED = ".done", ".started"
Marker = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """What a stage makes and from what.

    `folder` gets the output. `options` holds what the user set, by the name that the user gave it ("--epochs").
    `inputs` are paths by the name that a message uses: a folder with a marker stands for its digest, a file for its
    content. Files that the options name, as budget.weights=FILE and criterion.teacher=[FILE,FILE] do, are inputs too.
    """

    folder: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Path] = field(default_factory=dict)

    def done(self, redo: bool = False) -> bool:
        """Whether `run` would find it done; not where an input is still to be made.

        Errors: UserError where `run` would stop, as its folder was made otherwise.
        """
        if not all((path / DONE).exists() if path.is_dir() else path.exists() for path in self.inputs.values()):
            return False
        wanted = self._marker()
        if not redo and (changes := self._changes(wanted)):
            raise self._made_otherwise(changes)
        return self._up_to_date(wanted)

    def _made_otherwise(self, changes: list[str]) -> UserError:
        return UserError(f"{self.folder} was made otherwise: {'; '.join(changes)}. --redo makes it again; another "
                         "--dir keeps both")

    def run(self, make: Callable[[], None], redo: bool = False, clear: Callable[[], None] | None = None) -> bool:
        """Call `make` unless the marker says that it was done; whether it was called.

        `clear` removes the old output where a stage is made again; by default all of the folder goes. Errors: UserError
        where the marker has other options or inputs and `redo` is false.
        """
        with files.locked(self.folder):
            wanted = self._marker()
            if self._up_to_date(wanted):
                return False
            if (changes := self._changes(wanted)) and not redo:
                raise self._made_otherwise(changes)
            if changes:
                (clear or self._clear)()
            files.write_json(self.folder / STARTED, wanted)
            (self.folder / DONE).unlink(missing_ok=True)
            make()
            os.replace(self.folder / STARTED, self.folder / DONE)
        return True

    def _marker(self) -> Marker:
        """What the marker of this stage has to be."""
        options = json.loads(json.dumps(dict(self.options)))
        inputs = {name: digest_of(path) for name, path in {**self.inputs, **files_in(options)}.items()}
        content = json.dumps([options, inputs], sort_keys=True).encode()
        return {"digest": hashlib.sha256(content).hexdigest(), "options": options, "inputs": inputs}

    def _up_to_date(self, wanted: Marker) -> bool:
        done = read_marker(self.folder / DONE)
        return done is not None and done["digest"] == wanted["digest"]

    def _changes(self, wanted: Marker) -> list[str]:
        """What differs from the stage that was done, or from the one that was cut off; empty where nothing does."""
        for name in (STARTED, DONE):
            found = read_marker(self.folder / name)
            if found is not None:
                return differences(found, wanted)
        return []

    def _clear(self) -> None:
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def files_in(options: Mapping[str, Any]) -> dict[str, Path]:
    """The files that options name, as a value of their own or of a word KEY=VALUE or KEY=[VALUE,VALUE]."""
    words = [str(word) for value in options.values() for word in (value if isinstance(value, list) else [value])]
    named = [part for word in words for part in (word, *word.partition("=")[2].strip("[]").split(","))]
    return {one: Path(one) for one in named if os.path.isfile(one)}


def read_marker(path: Path) -> Marker | None:
    """The content of a marker, None where there is none.

    One that is no JSON object has no options and an empty digest.
    """
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    sound = isinstance(found, dict) and {"digest", "options", "inputs"} <= found.keys()
    return found if sound else {"digest": "", "options": {}, "inputs": {}}


def differences(found: Marker, wanted: Marker) -> list[str]:
    """In words, what was `found` in a marker and is `wanted` otherwise; empty where the digests are equal."""
    if found["digest"] == wanted["digest"]:
        return []
    if not found["digest"]:
        return ["its marker does not say with which options"]
    keys = [*found["options"], *(key for key in wanted["options"] if key not in found["options"])]
    pairs = [(key, found["options"].get(key), wanted["options"].get(key)) for key in keys]
    said = [f"{key} {_said(old)} -> {_said(new)}" for key, old, new in pairs if old != new]
    names = [*found["inputs"], *(name for name in wanted["inputs"] if name not in found["inputs"])]
    said += [f"{name} has changed" for name in names if found["inputs"].get(name) != wanted["inputs"].get(name)]
    return said


def _said(value: Any) -> str:
    """An option's value as one would write it."""
    if isinstance(value, list):
        return f"'{' '.join(map(_said, value))}'"
    if value is None or value == "":
        return "(none)"
    return str(value).lower() if isinstance(value, bool) else str(value)


def digest_of(path: Path) -> str:
    """The digest of an input: of a folder with a marker the marker's; else of the content.

    Errors: UserError where there is nothing, or where a folder has no marker: the stage that makes it is not done.
    """
    if path.is_dir():
        marker = read_marker(path / DONE)
        if marker is None:
            raise UserError(f"{path} is not finished; run the stage that makes it first")
        return marker["digest"] or "unknown"
    state = files.require_file(path, "the file").stat()
    return _content(path, state.st_size, state.st_mtime_ns)


@cache
def _content(path: Path, size: int, changed: int) -> str:
    """The digest of a file; one that is as long and as old as before is not read again."""
    return files.sha256(path)
