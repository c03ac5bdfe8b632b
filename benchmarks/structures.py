"""Forward time of every structure beside the dense product, one thread: python benchmarks/structures.py

Columns: multiply-adds per row, then for each batch size the time of one forward in microseconds and, in brackets, how
many times as fast as dense it is (best of several repeats).
"""

import argparse
import time

import torch

from asrcompress.compression import structures
from asrcompress.compression.structures import CannotShrink, Structure

SHAPES, SIZES, BATCHES = ((512, 1536), (2048, 2048)), (0.5, 0.25, 0.0625), (1, 16, 256)


def seconds(layer: Structure, x: torch.Tensor, at_least: float = 0.2) -> float:
    """The fastest forward within `at_least` seconds of them."""
    best, end = float("inf"), time.perf_counter() + at_least
    while time.perf_counter() < end:
        start = time.perf_counter()
        layer(x)
        best = min(best, time.perf_counter() - start)
    return best


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", nargs="*", default=[n for n in structures.names() if n != "dense"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for shape in SHAPES:
        inputs = [torch.randn(batch, shape[1]) for batch in BATCHES]
        dense = structures.init("dense", shape)
        base = [seconds(dense, x) for x in inputs]
        print(f"{shape[0]} x {shape[1]}".ljust(24), "MACs".rjust(10), *(f"batch {b}".rjust(18) for b in BATCHES))
        print("dense".ljust(24), f"{dense.macs(1):10,}", *(f"{t * 1e6:10.0f}        " for t in base))
        for name in args.structures:
            for size in SIZES:
                try:
                    layer = structures.init(name, shape, size)
                except CannotShrink as error:
                    print(f"{name} {size}: {error}")
                    continue
                times = [seconds(layer, x) for x in inputs]
                print(f"{name} {size:g}".ljust(24), f"{layer.macs(1):10,}",
                      *(f"{t * 1e6:10.0f} ({b / t:5.1f})" for t, b in zip(times, base, strict=True)))


if __name__ == "__main__":
    main()
