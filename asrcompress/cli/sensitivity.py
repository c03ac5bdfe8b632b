"""Measure what compression costs in each part of a model, and write it as the weights of a budget.

    asrcompress sensitivity --model exp/dense/model.safetensors --data data --lang data/lang_phone --out weights.yaml
    asrcompress compress --model exp/dense/model.safetensors --out exp/svd-0.25/init.safetensors \\
        structure=svd size=0.25 budget.weights=weights.yaml
One group of layers after the other is cut by truncated SVD to --size of its parameters, and the CTC loss of held-out
speech is taken. Layers whose paths differ only in numbers are a group; --group '*.query,*.key' names others.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asrcompress.compression.sensitivity import Component


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="FILE", help="model file or packed file")
    parser.add_argument("--data", type=Path, required=True, help="folder of prepared sets")
    parser.add_argument("--lang", type=Path, required=True)
    parser.add_argument("--set", default="dev",
                        help="its set to use, never a test set (default: dev, the held-out training speakers)")
    parser.add_argument("--minutes", type=float, default=20, help="of the set, drawn at random (default: 20)")
    parser.add_argument("--size", type=float, default=0.25, help="what is left of a group's parameters (default: 0.25)")
    parser.add_argument("--group", action="append", default=[], metavar="GLOB[,GLOB...]",
                        help="layers to cut together; may be given several times")
    parser.add_argument("--out", required=True, metavar="FILE", help="weights to write, .yaml or .json")


def run(args: argparse.Namespace) -> None:
    from asrcompress.compression import load, sensitivity
    from asrcompress.compression.budget import weights
    from asrcompress.training.held_out import ctc_loss

    components = sensitivity.measure(load(args.model), ctc_loss(args.data, args.set, args.lang, args.minutes),
                                     args.size, args.group)
    found = sensitivity.weights(components)
    weights.write(args.out, found)
    show(components, found, args.out)


def show(components: "list[Component]", weights: dict[str, float], path: str) -> None:
    """Print one row per group, what costs most for each parameter first."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=path, title_justify="left")
    table.add_column("layers", overflow="fold")
    for column in ("parameters", "relative error", "loss +", "loss + per M saved", "weight"):
        table.add_column(column, justify="right")
    for one in components:
        table.add_row(one.name, f"{one.parameters:,}", f"{one.error:.3f}", f"{one.damage:.4f}", f"{one.rate:.3f}",
                      f"{weights[one.name.split(',')[0]]:g}")
    Console(width=None if sys.stdout.isatty() else 120).print(table)
