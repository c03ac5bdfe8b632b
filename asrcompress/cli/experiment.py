"""Run a pipeline of compressions and trainings, such as prune, fine-tune, codebook, fine-tune, range coding.

asrcompress experiment --data data --lang data/lang_phone --model exp/dense/model.safetensors --out exp/deep \\
    experiment=deep_compression experiment.density=0.05 --train criterion=lfmmi
What can be run is in conf/experiment; what its files name beside `steps` can be set. An option of a method, such as
quantization.group=64, goes to every step that chooses a method which has it. Run again, it goes on after the last step
that was done.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folders, the model, overrides of the pipeline, and overrides of its trainings."""
    parser.add_argument("--data", type=Path, required=True, help="folder of prepared sets")
    parser.add_argument("--lang", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, metavar="FILE", help="model file to start from")
    parser.add_argument("--dense", type=Path, metavar="FILE",
                        help="what sizes are fractions of, where --model is compressed already (default: --model)")
    parser.add_argument("--out", type=Path, required=True,
                        help="gets a folder per step, model.safetensors, model.packed and train.json")
    parser.add_argument("--redo", action="store_true", help="make steps again that were done with other options")
    parser.add_argument("--train", nargs="*", default=[], metavar="KEY=VALUE",
                        help="Hydra overrides of every training step: criterion=lfmmi train_sets=[a,b]")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE",
                        help="experiment=..., experiment.KEY=..., seed=..., and options of methods")


def run(args: argparse.Namespace) -> None:
    """Run the pipeline. Errors: UserError."""
    from asrcompress.config import compose
    from asrcompress.files import require_file
    from asrcompress.recipe import pipeline
    from asrcompress.training.run import train

    def trained(words: Sequence[str], init: Path | None, out: Path) -> None:
        train(compose("train", [*words, *args.train]), args.data, args.lang, out, init)

    def depends(words: Sequence[str]) -> tuple[dict[str, Any], dict[str, Path]]:
        config = compose("train", [*words, *args.train])
        read = [args.lang / name for name in ("tokens.txt", "lexicon.txt")]
        read += [args.data / f"{name}.text" for name in (*config["train_sets"], config["dev_set"])]
        return {"--train": args.train}, {path.name: path for path in read}

    of_methods = [word for word in args.overrides if is_option(word)]
    config = compose("experiment", [word for word in args.overrides if word not in of_methods])
    model = require_file(args.model, "the model to compress")
    pipeline.run(config, of_methods, model, args.dense or model, args.out, trained, args.redo, args.data, depends)


def is_option(word: str) -> bool:
    """Whether an override is an option of a method, as quantization.group=64, and none of conf/experiment.yaml."""
    key = word.partition("=")[0].lstrip("+")
    return "." in key and not key.startswith("experiment.")
