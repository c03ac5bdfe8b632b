"""Levels: a recogniser compressed in several ways, each file loaded again and evaluated, and a row for each.

A level is a name and the words of `asrcompress compress` that follow --model and --out: `int8=quantization=int8`, or
`eighth=--target 1/8`. `dense` is the model as it is, in float32. Folders are those of other recipes: EXP/NAME has
model.packed, EXP/NAME/SET the texts and the score of a test set.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asrcompress import files, recognisers
from asrcompress.compression import save
from asrcompress.decoding.evaluate import evaluate
from asrcompress.errors import UserError
from asrcompress.options import require
from asrcompress.recipe import commands
from asrcompress.recipe.rows import of_files
from asrcompress.recipe.stage import Stage
from asrcompress.report import rows

DENSE, PACKED, RESULT = "dense", "model.packed", "result.json"


@dataclass(frozen=True)
class Level:
    """A name, and words of `asrcompress compress`."""

    name: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sweep:
    """What is compressed, on what it is evaluated, and where: `options` are those of `recognisers.of`."""

    model: str
    data: Path
    sets: tuple[str, ...]
    exp: Path = Path("exp")
    options: tuple[tuple[str, Any], ...] = ()
    command: str = ""

    @property
    def search(self) -> str:
        """`greedy`, or `beam-5`."""
        beam = dict(self.options).get("beam", 1)
        return "greedy" if beam == 1 else f"beam-{beam}"


def parse(texts: Sequence[str]) -> list[Level]:
    """NAME=WORDS each, the dense model first. Errors: UserError for a text of another form, and a name twice."""
    levels = [Level(DENSE)]
    for text in texts:
        name, equals, words = text.partition("=")
        require(bool(equals and words and name) and "/" not in name, f"the level '{text}' is not NAME=WORDS, such as "
                "int8=quantization=int8")
        require(name not in [level.name for level in levels], f"there are two levels '{name}'; give each its own name")
        try:
            levels.append(Level(name, tuple(shlex.split(words))))
        except ValueError as error:
            raise UserError(f"the level '{text}' cannot be read ({error})") from None
    return levels


def compress(sweep: Sweep, level: Level, redo: bool = False) -> None:
    """EXP/NAME/model.packed. Errors: those of `asrcompress compress`."""
    folder = sweep.exp / level.name

    def make() -> None:
        if level.name == DENSE:
            save(folder / PACKED, recognisers.load_model(sweep.model))
        else:
            needs: list[str | Path] = []
            if not {"--calibrate", "--data-free"} & set(level.words) and _calibrates(level):
                needs = ["--calibrate", sweep.data]
            if {"--target", "--at-most"} & set(level.words):
                needs += ["--choices", sweep.exp]  # all targets choose from one table
            commands.here("compress", "--model", sweep.model, "--out", folder / PACKED, *needs, *level.words)

    Stage(folder, {"--model": sweep.model, "--level": list(level.words)}).run(make, redo)


def _calibrates(level: Level) -> bool:
    """Whether the words ask for something that needs speech."""
    return bool({"--target", "--at-most", "--distil", "--activations", "structure.data_aware=true"} & set(level.words))


def decode(sweep: Sweep, level: Level, redo: bool = False) -> str:
    """EXP/NAME/SET of every test set, and their rows in results.jsonl beside EXP; a line that says the WERs."""
    folder, dense, said = sweep.exp / level.name, sweep.exp / DENSE, []
    files.require_file(folder / PACKED, "the packed model")
    for name in sweep.sets:
        at = folder / name

        def make(name: str = name, at: Path = at) -> None:
            recogniser = recognisers.load(folder / PACKED, **dict(sweep.options))
            result = evaluate(recogniser, sweep.data, name, folder, None if level.name == DENSE else dense)
            row = {**of_files(at / "hyp.txt", folder / PACKED, dense / PACKED), "name": level.name,
                   "model": Path(sweep.model).name, "options": " ".join(level.words) or None, "test_set": name,
                   "search": sweep.search, "seed": 0, "command": sweep.command or None, **result.facts,
                   **result.score.row()}
            files.write_json(at / RESULT, rows.check(row, str(at / RESULT)))

        inputs = {"the model": folder, f"{name}.text": sweep.data / f"{name}.text"}
        if level.name != DENSE:
            inputs["the dense model's texts"] = dense / name
        Stage(at, {"--sets": name, **dict(sweep.options)}, inputs).run(make, redo)
        row = files.read_json(at / RESULT, "the row")
        rows.put(sweep.exp.parent / "results.jsonl", row)
        said.append(f"{name} {row['wer']:.2f} % [{row['ci95'][0]:.2f}, {row['ci95'][1]:.2f}]" if row["ci95"] else
                    f"{name} {row['wer']:.2f} %")
    return f"{level.name}: {row['packed_bytes']:,} bytes, 1/{row['ratio']:.3g}; WER {', '.join(said)}"
