"""A byte budget over all three axes beside budgets over one, at equal bytes, on held-out speech.

  cd recipes/librispeech && python ../../benchmarks/budget.py --model exp/dense/model.safetensors --data data

Each line is a file of at most the bytes in its first column, not fine-tuned: what its outputs are away from the dense
model's (nats a frame) and how many of its frames have another best token, on utterances that neither training nor the
budget saw. Peers: trellis with the same bits everywhere; svd by global_greedy, by ALDS in groups, and alike in each
layer, all in int8; data-aware svd by global_greedy in trellis at 4 bits, the best that we made by hand; and 4 or 8 bits
for each layer by measured sensitivity. Sizes of the peers come from bisection.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from asrcompress.cli.compress import speech
from asrcompress.compression import Plan, compress, load, quantization, record
from asrcompress.compression.choices import Ways
from asrcompress.compression.damage import Outputs
from asrcompress.compression.packed import writer
from asrcompress.compression.structures import CannotShrink
from asrcompress.compression.target import Table
from asrcompress.errors import UserError
from asrcompress.measure.machine import cpu

ROUNDS = 9  # of bisection


def largest(make: Callable[[float], nn.Module], low: float, high: float, target: int) -> nn.Module:
    """The model of the largest argument whose file is at most the target. Errors: CannotShrink."""
    found = None
    for _ in range(ROUNDS):
        middle = (low * high) ** 0.5
        try:
            model = make(middle)
            record.set_coder(model, "range", vectors="float16")
            fits = writer.length(model) <= target
        except CannotShrink:
            fits, model = True, None
        low, high, found = (middle, high, model or found) if fits else (low, middle, found)
    if found is None:
        raise CannotShrink("no size is small enough")
    return found


def ways(ours: Table, sensitive: Table, target: int) -> Iterator[tuple[str, Callable[[], nn.Module]]]:
    """Names, and functions that make a model whose file has at most so many bytes."""
    model = ours.model

    def small(structure: str, budget: str, **more: Any) -> Callable[[], nn.Module]:
        def make(size: float) -> nn.Module:
            plan = Plan(structure, size, budget=budget, **({"quantization": "int8"} | more))
            return compress(model, plan, calibration=sensitive.form.moments)[0]

        return lambda: largest(make, 0.01, 1.0, target)

    yield "byte budget", lambda: ours.fit(target)[0]
    yield "trellis, the same bits everywhere", lambda: largest(
        lambda bits: quantization.apply(model, "trellis", bits=bits), 0.5, 10, target)
    yield "svd by global_greedy, int8", small("svd", "global_greedy")
    yield "aware svd by global_greedy, 4 bits", small("svd", "global_greedy", options={"data_aware": True},
                                                      quantization="trellis", quantization_options={"bits": 4.0})
    yield "grouped by ALDS, int8", small("grouped", "alds")
    yield "svd alike in each layer, int8", small("svd", "uniform")
    yield "int4 or int8 by sensitivity", lambda: sensitive.fit(target)[0]


@torch.no_grad()
def others(whole: Outputs, small: nn.Module) -> float:
    """Percent of frames with another best token."""
    changed = [(whole.rows_of(small, batch).argmax(-1) != rows.argmax(-1)) for batch, rows in
               zip(whole.batches, whole.rows, strict=True)]
    return 100 * float(torch.cat(changed).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a trained model file")
    parser.add_argument("--data", type=Path, required=True, help="folder of prepared sets")
    parser.add_argument("--set", default="dev", help="the last third of its batches is measured on")
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--parts", nargs="*", type=float, default=[10, 20, 40, 80], help="of the dense model's bytes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, batches = load(args.model), list(speech(args.data, args.set, args.minutes, 0))
    seen, unseen = batches[: 2 * len(batches) // 3], batches[2 * len(batches) // 3 :]
    whole = Outputs(model, unseen)
    ours = Table(model, seen)
    sensitive = Table(model, seen, Ways(structures=("dense",), quantizations=("int4", "int8")))
    print(f"{args.model}: {ours.dense_bytes:,} bytes; {cpu()}, 1 thread; rank correlation {ours.rank_correlation:.3f}")
    for part in args.parts:
        target = int(ours.dense_bytes / part)
        print(f"\n1/{part:g}".ljust(38), "    bytes   nats a frame   other tokens %")
        for name, make in ways(ours, sensitive, target):
            try:
                small = make()
            except (CannotShrink, UserError):
                print(f"{name:36} cannot be so small", flush=True)
                continue
            print(f"{name:36} {writer.length(small):11,} {whole.divergence(small):12.4f} {others(whole, small):12.1f}",
                  flush=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"{error}") from None
