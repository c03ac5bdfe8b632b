"""Packed model files: write one and check it, or print where each byte goes.

asrcompress packed save --model exp/svd-0.25/model.safetensors --out exp/svd-0.25/model.packed
asrcompress packed info exp/svd-0.25/model.packed
"""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    save = actions.add_parser("save", help="fold norms, write the packed file, load it again and compare outputs")
    save.add_argument("--model", required=True, metavar="FILE", help="model file")
    save.add_argument("--out", required=True, metavar="FILE", help="packed file to write")
    info = actions.add_parser("info", help="an itemised table of the file's bytes")
    info.add_argument("file", metavar="FILE", help="packed file")


def run(args: argparse.Namespace) -> None:
    if args.action == "save":
        write(args.model, args.out)
    else:
        show(args.file)


def write(model_path: str, path: str) -> None:
    """Pack a model file. `packed.save` loads the file again, and keeps none that is not what was written."""
    from asrcompress.compression import folding, load, packed

    model = load(model_path)
    packed.save(path, model)
    if kept := folding.unfoldable(model):
        norm, why = next(iter(kept.items()))
        print(f"{len(kept)} LayerNorms keep gain and bias; {norm}, since {why}")
    print(f"{path}: {Path(path).stat().st_size:,} bytes, loaded again as written")


def show(path: str) -> None:
    """Print a row per tensor, and the sum, which is the file's size."""
    from rich.console import Console
    from rich.table import Table

    from asrcompress.compression import packed

    rows = packed.info(path)
    table = Table(title=path, title_justify="left")
    for column in ("tensor", "shape", "structure", "quantization", "coder"):
        table.add_column(column, overflow="fold")
    for column in ("parameters", "bytes"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(row["name"], " x ".join(map(str, row["shape"])),
                      *(row[key] for key in ("structure", "quantization", "coder")),
                      f"{row['parameters']:,}" if row["parameters"] else "", f"{row['bytes']:,}")
    table.add_section()
    parameters, size = (sum(row[key] for row in rows) for key in ("parameters", "bytes"))
    table.add_row("file", "", "", "", "", f"{parameters:,}", f"{size:,}")
    Console(width=None if sys.stdout.isatty() else 120).print(table)
