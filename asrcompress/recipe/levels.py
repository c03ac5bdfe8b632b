"""Levels: a recogniser compressed in several ways, each file loaded again and evaluated, and a row for each.

A level is a name and the words of `asrcompress compress` that follow --model and --out: `int8=quantization=int8`, or
`eighth=--target 1/8`. `dense` is the model as it is, in float32. Folders are those of other recipes: EXP/NAME has
model.packed, EXP/NAME/SET the texts and the score of a test set, and EXP/NAME/device/PRECISION the files for
sherpa-onnx, with SET in the same way.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from asrcompress import files, recognisers
from asrcompress.compression import save
from asrcompress.compression.packed import info
from asrcompress.decoding.evaluate import evaluate, score_texts
from asrcompress.errors import UserError
from asrcompress.lang import text
from asrcompress.measure import machine
from asrcompress.options import require
from asrcompress.recipe import commands
from asrcompress.recipe.rows import of_files, search_of
from asrcompress.recipe.stage import Stage
from asrcompress.report import rows

DENSE, PACKED, RESULT = "dense", "model.packed", "result.json"
ENGLISH = "en"  # what recognisers and runtimes hear unless they are told
WEIGHTS = (".safetensors", ".json", ".txt")  # what is read of a folder of Hugging Face's


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


def parse(texts: Sequence[str]) -> list[Level]:
    """NAME=WORDS each, the dense model first; blanks around them are left out.

    Errors: UserError for a text of another form, and a name twice.
    """
    levels = [Level(DENSE)]
    for one in filter(str.strip, texts):
        name, equals, words = map(str.strip, one.partition("="))
        require(bool(equals and words and name) and "/" not in name, f"the level '{one}' is not NAME=WORDS, such as "
                "int8=quantization=int8")
        require(name not in [level.name for level in levels], f"there are two levels '{name}'; give each its own name")
        try:
            levels.append(Level(name, tuple(shlex.split(words))))
        except ValueError as error:
            raise UserError(f"the level '{one}' cannot be read ({error})") from None
    return levels


def compress(sweep: Sweep, level: Level, redo: bool = False) -> None:
    """EXP/NAME/model.packed. Errors: those of `asrcompress compress`."""
    folder, calibrated = sweep.exp / level.name, _calibrates(level)

    def make() -> None:
        if level.name == DENSE:
            save(folder / PACKED, recognisers.load_model(sweep.model))
        else:
            needs: list[str | Path] = ["--calibrate", sweep.data] if calibrated else []
            if {"--target", "--at-most"} & set(level.words):
                needs += ["--choices", sweep.exp]  # all targets choose from one table
            commands.here("compress", "--model", sweep.model, "--out", folder / PACKED, *needs, *level.words)

    given = dict(pairwise(level.words))
    heard = [given.get("--calibrate-set", "dev"), given.get("--distil-set")] if calibrated else []
    inputs = {f"{name}.text": sweep.data / f"{name}.text" for name in heard if name}
    if (weights := Path(sweep.model.removeprefix(recognisers.HUB))).is_dir():
        inputs |= {path.name: path for path in sorted(weights.iterdir()) if path.suffix in WEIGHTS}
    Stage(folder, {"--model": sweep.model, "--level": list(level.words)}, inputs).run(make, redo)


def _calibrates(level: Level) -> bool:
    """Whether the words ask for something that needs speech, and do not say which."""
    asked = {"--target", "--at-most", "--distil", "--activations", "structure.data_aware=true"} & set(level.words)
    return bool(asked) and not {"--calibrate", "--data-free"} & set(level.words)


def decode(sweep: Sweep, level: Level, redo: bool = False) -> str:
    """EXP/NAME/SET of every test set, and their rows in results.jsonl beside EXP; a line that says the WERs."""
    folder, dense, said = sweep.exp / level.name, sweep.exp / DENSE, []
    files.require_file(folder / PACKED, "the packed model")
    for name in sweep.sets:
        at = folder / name

        def make(name: str = name, at: Path = at) -> None:
            recogniser = recognisers.load(folder / PACKED, **dict(sweep.options))
            result = evaluate(recogniser, sweep.data, name, folder, None if level.name == DENSE else dense)
            row = {**_described(sweep, level, name, at), **result.facts, **result.score.row()}
            files.write_json(at / RESULT, rows.check(row, str(at / RESULT)))

        inputs = {"the model": folder, f"{name}.text": sweep.data / f"{name}.text"}
        if level.name != DENSE:
            inputs["the dense model's texts"] = dense / name
        options = {key: str(value) if isinstance(value, Path) else value for key, value in sweep.options}
        Stage(at, {"--sets": name, **options}, inputs).run(make, redo)
        row = _put(sweep, at)
        said.append(_wer(row))
    return f"{level.name}: {row['packed_bytes']:,} bytes, 1/{row['ratio']:.3g}; WER {', '.join(said)}"


def device(sweep: Sweep, level: Level, precision: str, redo: bool = False) -> str:
    """EXP/NAME/device/PRECISION, the files for sherpa-onnx, and what that says of every test set, with rows; a line of
    bytes, WERs and real-time factors. Errors: those of `asrcompress export` and `decode`."""
    folder, said = sweep.exp / level.name, []
    out = folder / "device" / precision
    Stage(out, {"--precision": precision}, {"the model": folder}).run(lambda: commands.here(
        "export", folder / PACKED, "--precision", precision, "--out", out), redo)
    recogniser = recognisers.load(folder / PACKED, **dict(sweep.options))
    language = dict(sweep.options).get("language", ENGLISH)
    spoken = {} if language == ENGLISH else {"--language": language}
    size = sum(path.stat().st_size for path in out.glob("*.onnx"))
    for name in sweep.sets:
        at, dense = out / name, None if level.name == DENSE else sweep.exp / DENSE / name

        def make(name: str = name, at: Path = at, dense: Path | None = dense) -> None:
            commands.here("decode", "--model", out, "--data", sweep.data, "--set", name, "--out", at,
                          *chain(*spoken.items()))
            score = score_texts(recogniser, text.read(at / "hyp.txt"), sweep.data / f"{name}.text", at, dense)
            found = files.read_json(at / "decode.json")
            row = {**_described(sweep, level, name, at), "search": "greedy",  # whatever the beam of the recogniser is
                   "precision": precision, "runtime": found["runtime"], "device_bytes": size, "rtf": found["rtf"],
                   "threads": found["threads"], "cpu": machine.cpu(), **score.row()}
            files.write_json(at / RESULT, rows.check(row, str(at / RESULT)))

        inputs = {"the device files": out, f"{name}.text": sweep.data / f"{name}.text"}
        if dense:
            inputs["the dense model's texts"] = dense
        Stage(at, {"--sets": name, **spoken}, inputs).run(make, redo)
        row = _put(sweep, at)
        said.append(f"{_wer(row)}, RTF {row['rtf']:.3f}")
    return f"{level.name}, {precision}: {size:,} bytes; WER {'; '.join(said)}"


def _described(sweep: Sweep, level: Level, name: str, at: Path) -> rows.Row:
    """What the rows of a level say of its file, its words and a test set."""
    packed, dense = sweep.exp / level.name / PACKED, sweep.exp / DENSE / PACKED
    return {**of_files(at / "hyp.txt", packed, dense), **stored(packed), "name": level.name,
            "when": "none" if level.name == DENSE else "after", "model": Path(sweep.model).name,
            "options": " ".join(level.words) or None, "test_set": name,
            "search": search_of(dict(sweep.options)), "seed": 0, "command": sweep.command or None}


def _put(sweep: Sweep, at: Path) -> rows.Row:
    """The row of a decoding, which is then in results.jsonl too."""
    row: rows.Row = files.read_json(at / RESULT, "the row")
    rows.put(sweep.exp.parent / "results.jsonl", row, same=rows.FOLDER)
    return row


def stored(path: Path) -> dict[str, str]:
    """How a packed file stores its matrices and kernels: what is not plain of each axis, as `svd` or `int8+trellis`."""
    tensors = [row for row in info(path) if len(row["shape"]) > 1]
    plain = {"structure": "dense", "quantization": "float32", "coder": "raw"}
    return {axis: "+".join(sorted({row[axis] for row in tensors} - {one})) or one for axis, one in plain.items()}


def _wer(row: rows.Row) -> str:
    """`dev-clean-2 8.20 % [7.10, 9.31]`."""
    interval = f" [{row['ci95'][0]:.2f}, {row['ci95'][1]:.2f}]" if row["ci95"] else ""
    return f"{row['test_set']} {row['wer']:.2f} %{interval}"
