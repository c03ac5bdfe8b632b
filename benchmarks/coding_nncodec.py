"""What nncodec (ISO/IEC 15938-17) makes of quantized tensors; `coding.py` runs this in nncodec's own environment.

  python benchmarks/coding_nncodec.py tensors.npz     # prints a JSON list of rows

The file holds, for each tensor, `codes/NAME` (integers), `weights/NAME` (what they stand for before quantization) and
`error/NAME` (the squared error that they make). Rows: the same integers without loss; and nncodec's own quantizers,
uniform and dependent (trellis-coded), with a step for each tensor that makes the same squared error.
"""

import contextlib
import io
import json
import sys
import time
from typing import Any

import numpy as np
from nncodec.tensor import decode, encode

QP, CROP, ROUNDS = -32, 2**17, 14


def code(tensor: np.ndarray, dependent: bool = False) -> tuple[int, float, float, np.ndarray]:
    """(bytes, seconds to code, seconds to decode, what comes back)"""
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.process_time()
        stream = encode(tensor, {"qp": QP, "use_dq": dependent})
        coded = time.process_time()
        again = np.asarray(decode(stream))
    return len(stream), coded - start, time.process_time() - coded, again


def scale_for(weights: np.ndarray, error: float, dependent: bool) -> float:
    """The factor before nncodec's fixed step that makes the error; found on a part of the rows."""
    part = np.ascontiguousarray(weights[:: max(1, weights.size // CROP)])
    low, high = 1e-4, 1e5
    for _ in range(ROUNDS):
        middle = (low * high) ** 0.5
        again = code((part * middle).astype(np.float32), dependent)[-1] / middle
        low, high = (middle, high) if np.square(again - part).mean() > error / weights.size else (low, middle)
    return high


def row(name: str, results: list[tuple[int, float, float, float]]) -> dict[str, Any]:
    total, coding, decoding, error = (sum(part) for part in zip(*results, strict=True))
    return {"name": name, "bytes": total, "coding": coding, "decoding": decoding, "error": error}


def main() -> None:
    with np.load(sys.argv[1]) as file:
        tensors = {key: file[key] for key in file.files}
    names = [key.partition("/")[2] for key in tensors if key.startswith("codes/")]
    results = []
    for name in names:
        codes, error = tensors[f"codes/{name}"].astype(np.int32), float(tensors[f"error/{name}"])
        *figures, again = code(codes)
        assert np.array_equal(again, codes), name
        results.append((*figures, error))
    rows = [row("nncodec, the same integers", results)]
    for dependent in (False, True):
        results = []
        for name in names:
            weights = tensors[f"weights/{name}"]
            scale = scale_for(weights, float(tensors[f"error/{name}"]), dependent)
            size, coding, decoding, again = code((weights * scale).astype(np.float32), dependent)
            results.append((size + 4, coding, decoding, float(np.square(again / scale - weights).sum())))
        rows.append(row(f"nncodec, its {'dependent' if dependent else 'uniform'} quantizer", results))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
