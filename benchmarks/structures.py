"""Forward and training step of every structure beside the dense product, one thread: python benchmarks/structures.py

One line per structure and size: stored numbers, multiply-adds per row, then how many times as fast as dense the forward
is at each batch size, how many times as long as dense a training step (forward and backward) takes, and the peak that a
step at the largest batch allocates, over that of dense. A step's gradient goes to the numbers and on to the inputs, as
in a hidden layer; batches of 2048 are those of training, as to rebuild a weight costs as much for a few rows. Each is
timed in turns with dense; nan is what was left out after a call of over two seconds. `least` is the smallest size of a
family. Peers run in the same process at about the same numbers: tensorly-torch's factorized layers, and
torch-structured's where installed (`pip install torch-structured einops opt_einsum`).
"""

import argparse
import importlib
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from asrcompress.compression import structures
from asrcompress.compression.structures import CannotShrink
from asrcompress.measure.machine import cpu

Layer = Callable[[Tensor], Tensor]
SHAPES, SIZES = ((512, 1536), (2048, 2048)), (0.5, 0.25, 0.0625)
BATCHES, STEP_BATCHES = (1, 16, 256), (1, 16, 256, 2048)


def seconds(call: Callable[[], Any], at_least: float) -> float:
    """The fastest call within `at_least` seconds of them; the first one warms up, unless it takes a second."""
    times: list[float] = []
    end = float("inf")
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
        if len(times) == 1:
            end = start + times[0] + (at_least if times[0] < 1 else 0)
    return min(times)


def in_turns(call: Callable[[], Any], dense: Callable[[], Any], at_least: float) -> tuple[float, float]:
    """The fastest call and the dense layer's fastest: a machine's speed changes while it is measured."""
    one = base = float("inf")
    for _ in range(4):
        base, one = min(base, seconds(dense, at_least / 4)), min(one, seconds(call, at_least / 4))
        if one > 1:
            break
    return one, base


def figures(layer: Layer, dense: Layer, inputs: list[Tensor], step_inputs: list[Tensor], at_least: float,
            ) -> tuple[list[float], list[float], float]:
    """Times as fast as dense, times as long a step, times the memory; nan after a call of over two seconds."""
    took, times = 0.0, []  # the longest call, and what each took over dense
    for call, x in [(infer, x) for x in inputs] + [(step, x) for x in step_inputs]:
        one, base = in_turns(partial(call, layer, x), partial(call, dense, x), at_least) if took < 2 else (math.nan, 1)
        took = max(took, one)
        times.append(one / base)
    fast, slow = [1 / t for t in times[: len(inputs)]], times[len(inputs) :]
    largest = step_inputs[-1]
    return fast, slow, step_bytes(layer, largest) / step_bytes(dense, largest) if took < 2 else math.nan


@torch.inference_mode()
def infer(layer: Layer, x: Tensor) -> None:
    layer(x)


def step(layer: Layer, x: Tensor) -> None:
    layer(x).sum().backward()


def step_bytes(layer: Layer, x: Tensor) -> int:
    """The most bytes that one step has allocated at a time, of what is alive after it begins."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        step(layer, x)
    events = [e for e in trace.profiler.kineto_results.events() if e.name() == "[memory]"]
    alive = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        alive += event.nbytes()
        most = max(most, alive)
    return most


def candidates(name: str, shape: tuple[int, int]) -> Iterator[tuple[str, Any, int, int]]:
    """(label, layer, numbers, multiply-adds of one row) at each size that the family reaches, and its smallest."""
    least = structures.family(name).min_parameters(shape, structures.make_options(name, {})) / math.prod(shape)
    for size in (*SIZES, least):
        try:
            layer = structures.init(name, shape, size)
        except CannotShrink as error:
            print(f"{name} {size:g}: {error}")
            continue
        yield f"{name} {'least' if size == least else f'{size:g}'}", layer, layer.num_parameters(), layer.macs(1)


def tensorly_torch(shape: tuple[int, int]) -> Iterator[tuple[str, Any, int, None]]:
    """Factorized layers of tensorly-torch, three modes a side, their rank chosen by the size as they do it."""
    try:
        tltorch = importlib.import_module("tltorch")
    except ImportError:
        print("tensorly-torch is not installed; its layers are left out")
        return
    sides = [tltorch.utils.get_tensorized_shape(shape[1], shape[0], order=3, verbose=False)]
    for kind in ("Tucker", "CP", "BlockTT"):
        for size in SIZES:
            inputs, outputs = sides[0]
            layer = tltorch.FactorizedLinear(inputs, outputs, bias=False, factorization=kind, rank=size,
                                             implementation="factorized")
            yield f"tltorch {kind} {size:g}", layer, sum(p.numel() for p in layer.parameters()), None


def torch_structured(shape: tuple[int, int]) -> Iterator[tuple[str, Any, int, None]]:
    """torch-structured has square layers only."""
    try:
        layers = importlib.import_module("torch_structured.structured.layers")
    except ImportError as error:
        print(f"torch-structured cannot be imported ({error}); its layers are left out")
        return
    if shape[0] != shape[1]:
        return
    for kind, options in (("Circulant", {}), ("ToeplitzLike", {"r": 4}), ("LDRSubdiagonal", {"r": 4})):
        layer = getattr(layers, kind)(layer_size=shape[0], bias=False, **options)
        yield f"torch-structured {kind}", layer, sum(p.numel() for p in layer.parameters()), None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", nargs="*", default=[n for n in structures.names() if n != "dense"])
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--seconds", type=float, default=0.1, help="spent on each figure, and as long on dense")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{cpu()}, torch {torch.__version__}, 1 thread; forward: times as fast as dense / step: times as long")
    for shape in SHAPES:
        inputs = [torch.randn(n, shape[1]) for n in BATCHES]
        step_inputs = [torch.randn(n, shape[1], requires_grad=True) for n in STEP_BATCHES]
        dense = structures.init("dense", shape)
        base = [seconds(partial(infer, dense, x), args.seconds) for x in inputs]
        base_step = [seconds(partial(step, dense, x), args.seconds) for x in step_inputs]
        print(f"\n{shape[0]} x {shape[1]}".ljust(29), "numbers".rjust(10), "MACs".rjust(10),
              *(f"forward {n}".rjust(11) for n in BATCHES), *(f"step {n}".rjust(9) for n in STEP_BATCHES), "memory")
        print("dense, microseconds".ljust(28), f"{math.prod(shape):10,} {math.prod(shape):10,}",
              *(f"{t * 1e6:11.0f}" for t in base), *(f"{t * 1e6:9.0f}" for t in base_step))
        rows = [candidates(name, shape) for name in args.structures]
        for row in rows + ([] if args.no_peers else [tensorly_torch(shape), torch_structured(shape)]):
            for label, layer, numbers, macs in row:
                try:
                    fast, slow, memory = figures(layer, dense, inputs, step_inputs, args.seconds)
                except RuntimeError as error:  # tensorly-torch's einsum may ask for more memory than there is
                    print(f"{label}: {str(error).splitlines()[0][:90]}")
                    continue
                print(label.ljust(28), f"{numbers:10,}", f"{macs:10,}" if macs is not None else " " * 10,
                      *(f"{f:11.1f}" for f in fast), *(f"{f:9.2f}" for f in slow), f"{memory:6.1f}", flush=True)


if __name__ == "__main__":
    main()
