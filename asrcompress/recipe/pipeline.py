"""Pipelines of `conf/experiment`: compressions and trainings one after the other."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from asrcompress import config as configs
from asrcompress import files
from asrcompress.errors import UserError
from asrcompress.recipe import commands
from asrcompress.recipe.stage import Stage

Step = tuple[str, list[str]]  # compress, target or train, and its overrides
# (overrides, model file to start from, or None: the step makes a new one, folder to write into)
Train = Callable[[Sequence[str], Path | None, Path], None]
# overrides of a training step -> options and inputs, as those of `Stage`, on which it depends besides
Depends = Callable[[Sequence[str]], tuple[Mapping[str, Any], Mapping[str, Path]]]
MODEL = "model.safetensors"


def steps(config: Mapping[str, Any], options: Sequence[str] = ()) -> list[Step]:
    """The steps of a composed `conf/experiment.yaml`, without trainings of no epoch.

    `options` may hold options of methods, as "quantization.group=64": each goes to every step that chooses a method
    which has it, those of `training` to every training. Others, without a dot, are left out. Errors: UserError for a
    step that is neither, and an option of none.
    """
    found: list[Step] = []
    for index, step in enumerate(config["experiment"]["steps"], 1):
        (kind, words), *rest = step.items()
        if rest or kind not in ("compress", "target", "train"):
            raise UserError(f"step {index} of the experiment is {step}; it is compress, target or train with its "
                            "overrides")
        found.append((kind, [str(word) for word in words]))
    for option in (option for option in options if "." in option.partition("=")[0]):
        takers = [words for kind, words in found if takes(kind, words, option)]
        if not takers:
            raise UserError(f"no step of the experiment has a method with the option '{option.partition('=')[0]}'")
        for words in takers:
            words.append(option)
    return [(kind, words) for kind, words in found if kind != "train" or "training.epochs=0" not in words]


def takes(kind: str, words: Sequence[str], option: str) -> bool:
    """Whether the overrides of a step choose a method that has an option, as "quantization.group=64"."""
    group, _, key = option.partition("=")[0].lstrip("+").partition(".")
    chosen = dict(word.split("=", 1) for word in words if "=" in word).get(group)
    if group in ("training", "model"):  # Hydra checks their keys
        return kind == "train" and (group == "training" or chosen is not None)
    known = configs.methods([group]) if group in configs.GROUPS else ()
    return any(key in {*(one.name for one in fields(kind)), *extra} for _, name, kind, extra in known if name == chosen)


def run(config: Mapping[str, Any], options: Sequence[str], model: Path, dense: Path, out: Path, train: Train,
        redo: bool = False, data: Path = Path("data"), depends: Depends = lambda words: ({}, {})) -> dict[str, Any]:
    """Run the steps from a model file into folders of `out`, and write its model.safetensors, model.packed and
    train.json. A training that chooses a model starts anew.

    Run again, it goes on after the last step that was done. `dense` is the model of which sizes are fractions; targets
    calibrate on the dev set of `data`. `depends` says on what `train` depends that the overrides do not tell; a recipe
    needs none, as the stage of its job knows all of it. Returns what result rows say of the model: structure,
    quantization, coder, size and the seconds of all trainings. Errors: UserError.
    """
    start, seconds, precision = model, 0.0, None
    for index, (kind, words) in enumerate(steps(config, options), 1):
        folder = out / f"{index}-{kind}"
        words = [*words, f"seed={config['seed']}"]

        source = None if makes_model(words) else model

        def make(kind: str = kind, words: list[str] = words, source: Path | None = source,
                 folder: Path = folder) -> None:
            print(f"step {folder.name}: {' '.join(words)}", flush=True)
            if kind == "train":
                train(words, source, folder)
            elif kind == "target":
                assert source is not None  # only a training makes a new model
                commands.here("compress", "--model", source, "--out", folder / MODEL,
                              *target_words(words, dense, data, source.parent))
            else:
                commands.here("compress", "--model", source, "--out", folder / MODEL, *words)

        told, needs = depends(words) if kind == "train" else ({}, {})
        if kind == "target":
            needs = {"the dense model": dense, "dev": data / "dev.text"}
        start_from = {f"the model {source}": source} if source else {}
        Stage(folder, {"overrides": words, **told}, {**start_from, **needs}).run(make, redo)
        model = folder / MODEL
        if kind == "train":
            trained = files.read_json(folder / "train.json", "the report of the training")
            seconds, precision = seconds + trained["train_seconds"], trained.get("precision")
    if model == start:
        raise UserError("the experiment has no step, so there is no model to write")
    commands.here("packed", "save", "--model", model, "--out", out / "model.packed")
    found = {"train_seconds": round(seconds, 1), **axes(model, out / "model.packed", dense)}
    files.write_json(out / "train.json", {**found, "precision": precision})
    with files.atomic(out / MODEL) as temporary:
        temporary.write_bytes(model.read_bytes())
    return found


def target_words(words: Sequence[str], dense: Path, data: Path, choices: Path) -> list[str]:
    """The arguments of `asrcompress compress` for a target step: --target, options, what to calibrate on, where the
    ways to store each weight are kept, overrides.

    A target as 1/20 is of the dense model, whatever the steps before made of it; `times=1.5` takes so many times as
    many bytes, at most those of the dense model. All targets of one model choose from one table, beside that model.
    """
    from asrcompress.compression import load
    from asrcompress.compression.budget.bytes import bytes_of
    from asrcompress.compression.packed import writer

    said = dict(word.split("=", 1) for word in words)
    whole = writer.length(load(dense))
    total = min(whole, int(bytes_of(said.pop("bytes"), whole) * _factor(said.pop("times", "1"))))
    flags = [f"--{key.replace('_', '-')}" for key in ("structures_only", "fit_steps") if said.pop(key, "") == "true"]
    if "--fit-steps" in flags:
        return ["--target", str(total), *flags]
    overrides = [f"{key}={value}" for key, value in said.items()]
    return ["--target", str(total), *flags, "--calibrate", str(data), "--choices", str(choices), *overrides]


def _factor(text: str) -> float:
    with suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise UserError(f"a target of times={text} of its bytes; give a number above 0, such as 1.25")


def makes_model(words: Sequence[str]) -> bool:
    """Whether a step with these overrides trains a new model, instead of the one that the step before it left."""
    return any(word.startswith("model=") for word in words)


def axes(model: Path, packed: Path, dense: Path) -> dict[str, Any]:
    """What a row says of a model file: its axes, and its packed bytes over those of the dense float32 values."""
    from asrcompress.compression import load, modules, quantization
    from asrcompress.compression.packed import info

    loaded, tensors = load(model), load(dense).state_dict(keep_vars=True).values()
    values = sum(tensor.numel() for tensor in {id(tensor): tensor for tensor in tensors}.values())  # tied: once
    made = {"structure": {layer.name for layer in modules.structured(loaded).values()} or {"dense"},
            "quantization": {one.name for one in quantization.attached(loaded).values()} or {"float32"},
            "coder": {row["coder"] for row in info(packed)} - {"raw", "json", "sha256"} or {"raw"}}
    return {**{key: "+".join(sorted(names)) for key, names in made.items()},
            "size": round(packed.stat().st_size / (4 * values), 4)}
