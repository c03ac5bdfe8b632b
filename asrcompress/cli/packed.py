"""Packed model files: write one and check it, or print where each byte goes.

asrcompress packed save --model exp/svd-0.25/model.safetensors --out exp/svd-0.25/model.packed
asrcompress packed info exp/svd-0.25/model.packed
"""

import argparse
import copy
import sys
from pathlib import Path

TOLERANCE = 1e-3  # of log-probabilities: what another order of float32 sums may cost


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    save = actions.add_parser("save", help="fold BatchNorm, write the packed file, load it again and compare outputs")
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
    """Pack a model file; what cannot be loaded again with the same outputs is removed and said."""
    from typing import Any

    import torch

    from asrcompress.compression import activations, fold, load, packed
    from asrcompress.errors import UserError

    model: Any = load(model_path)
    plain = activations.remove(copy.deepcopy(model))  # inputs that are rounded turn over where folding rounds otherwise
    written = packed.save(path, model)
    x = torch.randn(2, 200, model.config.get("features", 80), generator=torch.Generator().manual_seed(0))
    x_lens = torch.tensor([200, 151])
    with torch.inference_mode():
        outputs = [one(x, x_lens) for one in (plain, fold(plain), written, packed.load(path), model)]
    inside = torch.arange(outputs[0][0].shape[1]) < outputs[0][1][:, None]
    original, folded, rounded, loaded, given = (log_probs[inside] for log_probs, _ in outputs)
    folding, reading = (float((a - b).abs().max()) for a, b in ((original, folded), (rounded, loaded)))
    if not max(folding, reading) <= TOLERANCE or any(not torch.equal(lens, outputs[0][1]) for _, lens in outputs):
        Path(path).unlink()
        raise UserError(f"{model_path}: log-probabilities differ by {folding:g} once BatchNorm is folded and by "
                        f"{reading:g} once the file is loaded again, so the packed model was not kept")
    print(f"{path}: {Path(path).stat().st_size:,} bytes, loaded again as written within {reading:.1e}; "
          f"log-probabilities are those of the model within {float((given - loaded).abs().max()):.1e}")


def show(path: str) -> None:
    """Print a row per tensor, and the sum, which is the file's size."""
    from rich.console import Console
    from rich.table import Table

    from asrcompress.compression import packed

    rows = packed.info(path)
    table = Table(title=path, title_justify="left")
    for column in ("tensor", "shape", "structure", "quantization", "coder"):
        table.add_column(column, overflow="fold")
    for column in ("numbers", "bytes"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(row["name"], " x ".join(map(str, row["shape"])), row["structure"], row["quantization"], row["coder"],
                      f"{row['numbers']:,}" if row["numbers"] else "", f"{row['bytes']:,}")
    table.add_section()
    numbers, size = (sum(row[key] for row in rows) for key in ("numbers", "bytes"))
    table.add_row("file", "", "", "", "", f"{numbers:,}", f"{size:,}")
    Console(width=None if sys.stdout.isatty() else 120).print(table)
