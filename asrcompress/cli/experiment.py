"""Run a pipeline of compressions and trainings, such as prune, fine-tune, share, fine-tune, range coding.

asrcompress experiment --data data --lang data/lang_phone --model exp/dense/model.safetensors --out exp/deep \\
    experiment=deep_compression experiment.density=0.05 --train criterion=lfmmi
What can be run is in conf/experiment; what its files name beside `steps` can be set. Run again, it goes on after the
last step that was done.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder of prepared sets")
    parser.add_argument("--lang", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, metavar="FILE", help="model file to start from")
    parser.add_argument("--dense", type=Path, metavar="FILE",
                        help="what sizes are fractions of, where --model is compressed already (default: --model)")
    parser.add_argument("--out", type=Path, required=True,
                        help="gets a folder per step, model.safetensors, model.packed and train.json")
    parser.add_argument("--train", nargs="*", default=[], metavar="KEY=VALUE",
                        help="Hydra overrides of every training step: criterion=lfmmi train_sets=[a,b]")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides of conf/experiment.yaml")


def run(args: argparse.Namespace) -> None:
    from asrcompress.cli import packed
    from asrcompress.config import compose
    from asrcompress.errors import UserError
    from asrcompress.files import atomic, require_file

    config = compose("experiment", args.overrides)
    model = require_file(args.model, "the model to compress")
    seconds = 0.0
    for index, step in enumerate(config["experiment"]["steps"], 1):
        (kind, options), *rest = step.items()
        if rest or kind not in ("compress", "train"):
            raise UserError(f"step {index} of the experiment is {step}; it is compress or train with its overrides")
        words = list(flat(options))
        if kind == "train" and "training.epochs=0" in words:
            continue
        folder = args.out / f"{index}-{kind}"
        if not (folder / ".done").exists():
            print(f"step {index}: {kind} {' '.join(words)}", flush=True)
            folder.mkdir(parents=True, exist_ok=True)
            (compress if kind == "compress" else train)(args, model, folder, [*words, f"seed={config['seed']}"])
            (folder / ".done").touch()
        model = folder / "model.safetensors"
        if kind == "train":
            seconds += json.loads((folder / "train.json").read_text())["train_seconds"]
    packed.write(str(model), str(args.out / "model.packed"))
    with atomic(args.out / "train.json") as temporary:
        temporary.write_text(json.dumps({"train_seconds": round(seconds, 1), **row(args, model)}))
    with atomic(args.out / "model.safetensors") as temporary:
        temporary.write_bytes(model.read_bytes())


def flat(options: list[Any]) -> Iterator[str]:
    """The overrides of a step, in which {"quantization": {"group": 64}} stands for quantization.group=64."""
    for option in options:
        if not isinstance(option, dict):
            yield str(option)
            continue
        for group, entries in option.items():
            yield from (f"{group}.{key}={value}" for key, value in entries.items())


def row(args: argparse.Namespace, model: Path) -> dict[str, Any]:
    """What a result row says of the model: its axes, and its bytes over those of the float32 numbers it began with."""
    from asrcompress import models

    config, _ = models.read(model)
    _, tensors = models.read(args.dense or args.model)
    dense = 4 * sum(tensor.numel() for tensor in tensors.values())
    size = (args.out / "model.packed").stat().st_size / dense
    made = {key: {entry[key] for entry in (config.get(group) or {}).values()} or {default}
            for group, key, default in (("layers", "structure", "dense"), ("quantization", "quantization", "float32"))}
    return {**{key: "+".join(sorted(kinds)) for key, kinds in made.items()},
            "coder": (config.get("coder") or {}).get("coder", "raw"), "size": round(size, 4)}


def compress(args: argparse.Namespace, model: Path, folder: Path, options: list[str]) -> None:
    from asrcompress.cli import compress as command

    command.run(_parsed(command, ["--model", model, "--out", folder / "model.safetensors", *options]))


def train(args: argparse.Namespace, model: Path, folder: Path, options: list[str]) -> None:
    from asrcompress.cli import train as command

    where = ["--data", args.data, "--lang", args.lang, "--init", model, "--out", folder]
    command.run(_parsed(command, [*where, *options, *args.train]))


def _parsed(command: Any, arguments: list[Any]) -> argparse.Namespace:
    from asrcompress import cli

    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return cli.parse(parser, [str(argument) for argument in arguments])
