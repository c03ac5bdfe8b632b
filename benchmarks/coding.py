"""Bytes and speed of our coders beside zstandard, zlib and nncodec, on the quantized tensors of a trained model.

  python benchmarks/coding.py --model exp/dense/model.safetensors --nncodec-python PATH

First each coder on the same integers: int8, a codebook of 32, and one of 32 at density 0.1. Then what the whole
takes, scales and codebooks included, at the same squared error: of our quantizations, of a uniform step and of
`trellis` for each tensor under our range coder, and of nncodec's own quantizers. MB/s are of float32 weights, by CPU
seconds of one thread. nncodec 2.1.3 (ISO/IEC 15938-17) wants an environment of its own, `pip install nncodec==2.1.3`;
PATH is that one's Python.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from asrcompress.compression import coders, loading, packed, quantization
from asrcompress.compression.folding import fold
from asrcompress.compression.quantization import _cosine as cosine
from asrcompress.compression.quantization import _trellis_search as trellis
from asrcompress.errors import UserError
from asrcompress.measure.machine import cpu

SCHEMES: dict[str, tuple[str, dict[str, Any]]] = {
    "int8": ("int8", {}), "codebook-32": ("codebook", {"entries": 32}),
    "pruned_codebook-0.1": ("pruned_codebook", {"entries": 32, "density": 0.1})}
CLOSE, PASSES = 0.003, 3  # squared errors that are as good as equal; searches for them
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Quantized(NamedTuple):
    codes: NDArray[np.int64]
    weights: NDArray[np.float32]
    error: float  # sum of squares
    side_bytes: int  # scales, codebooks


class Row(NamedTuple):
    name: str
    bytes: int
    coding: float
    decoding: float
    error: float = 0.0


def quantized(dense: torch.nn.Module, small: torch.nn.Module) -> dict[str, Quantized]:
    found = {}
    for path, one in quantization.attached(small).items():
        encoded, weights = one.encode(), dense.get_parameter(path).detach().numpy()
        error = float(np.square(type(one).decode(encoded, one.shape).astype(np.float64) - weights).sum())
        codes = encoded.integers["codes"]
        found[path] = Quantized(codes, weights, error, sum(part.nbytes for part in encoded.floats.values()))
    return found


def timed(name: str, arrays: list[Any], code: Callable[[Any], bytes],
          decode: Callable[[bytes, Any], Any], again: Callable[[Any], Any] = lambda array: array) -> Row:
    """All arrays through a coder, each the faster of two."""
    total, seconds = 0, [0.0, 0.0]
    for array in arrays:
        data, first = fastest(lambda array=array: code(array))
        decoded, second = fastest(lambda data=data, array=array: decode(data, array))
        assert np.array_equal(decoded, again(array)), name
        total, seconds = total + len(data), [seconds[0] + first, seconds[1] + second]
    return Row(name, total, *seconds)


def fastest(call: Callable[[], Any]) -> tuple[Any, float]:
    times = []
    for _ in range(2):
        start = time.process_time()
        result = call()
        times.append(time.process_time() - start)
    return result, min(times)


def ours(arrays: list[NDArray[np.int64]]) -> Iterator[Row]:
    for name in coders.names():
        yield timed(name, arrays, lambda a, name=name: coders.encode(name, a),
                    lambda data, a, name=name: coders.decode(name, data, a.shape))


def general(arrays: list[NDArray[np.int64]]) -> Iterator[Row]:
    """Coders of bytes get a byte for each integer."""
    narrow = [array.astype(np.int8) for array in arrays]
    yield timed("zlib -9", narrow, lambda a: zlib.compress(a.tobytes(), 9),
                lambda data, a: np.frombuffer(zlib.decompress(data), np.int8).reshape(a.shape))
    try:
        import zstandard
    except ImportError:
        print("zstandard is not installed; left out (pip install zstandard)")
        return
    yield timed("zstandard -19", narrow, zstandard.ZstdCompressor(level=19).compress,
                lambda data, a: np.frombuffer(zstandard.ZstdDecompressor().decompress(data), np.int8).reshape(a.shape))


def uniform(tensors: list[Quantized]) -> Row:
    """One step for each tensor, so wide that the squared error is the same, and the range coder."""
    arrays, error = [], 0.0
    for one in tensors:
        low, high = 1e-9, 2 * float(np.abs(one.weights).max())
        for _ in range(40):
            step = (low * high) ** 0.5
            made = float(np.square(np.rint(one.weights / step) * step - one.weights, dtype=np.float64).sum())
            low, high = (step, high) if made < one.error else (low, step)
        arrays.append(np.rint(one.weights / low).astype(np.int64))
        error += float(np.square(arrays[-1] * low - one.weights).sum())
    row = timed("range, a step for each tensor", arrays, lambda a: coders.encode("range", a),
                lambda data, a: coders.decode("range", data, a.shape))
    return row._replace(bytes=row.bytes + 4 * len(arrays), error=error)


def dependent(tensors: list[Quantized]) -> Row:
    """quantization=trellis, with a step for each tensor that makes the same squared error."""
    trellis.quantize(tensors[-1].weights[:20], 0.1)  # compiles the loops
    arrays, searching = [], time.process_time()
    for one in tensors:
        axes = cosine.chosen(one.weights)
        values = cosine.forward(one.weights, axes)
        each, sample = one.error / values.size, trellis.Sample(values)
        step, power = trellis.step_for(values, error=each, sample=sample), 0.5
        codes, _, made = trellis.quantize(values, step, sample)
        for _ in range(PASSES):  # from the sample to the whole
            if abs(made / each - 1) < CLOSE:
                break
            change, before = (each / made) ** power, made
            step *= change
            codes, _, made = trellis.quantize(values, step, sample)
            power = min(2.0, max(0.3, float(np.log(change) / np.log(made / before))))
        arrays.append((codes.astype(np.int64), axes, step))
    searching = time.process_time() - searching
    error = sum(float(np.square(step * weights(codes, axes) - one.weights, dtype=np.float64).sum())
                for one, (codes, axes, step) in zip(tensors, arrays, strict=True))
    row = timed("range, trellis", arrays, lambda a: coders.encode("range", a[0]),
                lambda data, a: weights(coders.decode("range", data, a[0].shape), a[1]), lambda a: weights(*a[:2]))
    return row._replace(bytes=row.bytes + 4 * len(arrays), coding=row.coding + searching, error=error)


def weights(codes: NDArray[np.int64], axes: list[int]) -> NDArray[np.float64]:
    """What codes of `trellis` stand for, in steps."""
    return cosine.inverse(trellis.points(codes), axes)


def nncodec(tensors: list[Quantized], python: str) -> list[Row]:
    """nncodec codes zeros well, so that the most frequent integer is made 0."""
    parts: dict[str, Any] = {}
    for number, one in enumerate(tensors):
        low = one.codes.min()
        parts[f"codes/{number}"] = one.codes - low - np.bincount((one.codes - low).ravel()).argmax()
        parts[f"weights/{number}"], parts[f"error/{number}"] = one.weights, one.error
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tensors.npz")
        np.savez(path, **parts)
        worker = Path(__file__).resolve().with_name("coding_nncodec.py")
        done = subprocess.run([python, worker, path], check=True, stdout=subprocess.PIPE, cwd=folder,  # leaves a file
                              env={**os.environ, **dict.fromkeys(ONE_THREAD, "1")})
    return [Row(**row) for row in json.loads(done.stdout.splitlines()[-1])]


def load_seconds(small: torch.nn.Module, coder: str) -> tuple[int, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.packed")
        packed.save(path, small, coder=coder, vectors="float16")
        return path.stat().st_size, fastest(lambda: packed.load(path))[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a trained model file")
    parser.add_argument("--nncodec-python", help="the Python of an environment in which nncodec is installed")
    parser.add_argument("--schemes", nargs="*", choices=SCHEMES, default=list(SCHEMES))
    args = parser.parse_args()
    torch.set_num_threads(1)
    dense = fold(loading.load(args.model))
    print(f"{cpu()}, 1 thread")
    for scheme in args.schemes:
        name, options = SCHEMES[scheme]
        small = quantization.apply(dense, name, **options)
        tensors = list(quantized(dense, small).values())
        arrays, weights = [one.codes for one in tensors], sum(one.codes.size for one in tensors)
        peers = nncodec(tensors, args.nncodec_python) if args.nncodec_python else []

        def show(row: Row, weights: int = weights) -> None:
            speed = [4e-6 * weights / seconds for seconds in (row.coding, row.decoding)]
            print(f"{row.name:32} {row.bytes:11,} {8 * row.bytes / weights:8.3f} {4 * weights / row.bytes:7.2f} "
                  f"{speed[0]:9.1f} {speed[1]:9.1f}", flush=True)

        print(f"\n{scheme}: {weights:,} weights".ljust(33), "      bytes   bits/w   ratio  code MB/s  decode")
        rows = [*ours(arrays), *general(arrays), *peers[:1]]
        for row in rows:
            show(row)
        side, error = sum(one.side_bytes for one in tensors), sum(one.error for one in tensors)
        best = next(row for row in rows if row.name == "range")
        print(f"with scales and codebooks, at the same squared error ({error:.5g}):")
        for row in (best._replace(name=f"range, {scheme}", bytes=best.bytes + side, error=error), uniform(tensors),
                    dependent(tensors), *peers[1:]):
            show(row._replace(name=f"{row.name}, error {row.error / error:.3f}"))
        for coder in ("raw", "huffman", "range"):
            size, seconds = load_seconds(small, coder)
            print(f"packed.load, {coder}: {size:,} bytes, {seconds:.2f} CPU seconds")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"{error}") from None
