"""Compress a model: choose a structure and a budget, write a model file to fine-tune or pack.

Example: asrcompress compress --model dense.safetensors --out exp/init.safetensors structure=svd budget.size=0.25
What can be set is in conf/compress.yaml, conf/structure and conf/budget.
"""

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asrcompress.compression import LayerRecord


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="FILE", help="model file or packed file to compress")
    parser.add_argument("--out", required=True, metavar="FILE", help="model file to write (safetensors)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides, e.g. budget.size=0.25")


def run(args: argparse.Namespace) -> None:
    from asrcompress.compression import Plan, compress, load, save_model
    from asrcompress.config import compose

    plan = Plan.from_config(compose("compress", args.overrides))
    small, report = compress(load(args.model), plan)
    save_model(args.out, small)
    show(report, args.out)


def show(report: "list[LayerRecord]", path: str) -> None:
    """Print one row per weight, and the sum."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=path, title_justify="left")
    for column in ("layer", "shape", "structure"):
        table.add_column(column, overflow="fold")
    for column in ("rank", "numbers", "of dense", "error"):
        table.add_column(column, justify="right")
    for row in report:
        kind = f"{row.structure} ({row.note})" if row.note else row.structure
        table.add_row(row.path, " x ".join(map(str, row.shape)), kind, str(row.rank or ""), f"{row.after:,}",
                      f"{row.after / row.before:.3f}", f"{row.error:.4f}")
    before, after = sum(row.before for row in report), sum(row.after for row in report)
    table.add_section()
    table.add_row("all weights", "", "", "", f"{after:,}", f"{after / before:.3f}", "")
    Console(width=None if sys.stdout.isatty() else 120).print(table)
