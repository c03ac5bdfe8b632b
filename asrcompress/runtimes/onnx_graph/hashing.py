"""The hashed weight as a graph: its pool is stored, and ONNX's integer operators make the table again at load.

Nothing in it depends on the input, so onnxruntime folds it to one weight when it creates a session. The functions
mirror those of `compression.structures.tables`. ONNX multiplies and adds int64, which wraps around as uint64 does,
and shifts uint64.
"""

import itertools
import math

import numpy as np
from onnx import TensorProto
from torch import Tensor

from asrcompress.compression.structures import tables as hashes
from asrcompress.compression.structures.hashing.hashed import PIECE, Hashed
from asrcompress.runtimes.onnx_graph.builder import Graph


def matrix(g: Graph, name: str, layer: Hashed, scale: Tensor | None = None) -> str:
    """The weight as (taps x in, out), its rows scaled."""
    out, inputs, taps = (*layer.shape, 1)[:3]
    weight = g.op("Gather", g.weight(f"{name}.pool", layer.pool), indices(g, layer), axis=0)
    if layer.sign:
        weight = g.op("Mul", weight, signs(g, layer.seed, math.prod(layer.shape)))
    weight = g.op("Transpose", g.op("Reshape", weight, g.ints(out, inputs, taps)), perm=[2, 1, 0])
    weight = g.op("Reshape", weight, g.ints(taps * inputs, out))
    return weight if scale is None else g.op("Mul", weight, g.weight(f"{name}.scale", scale))


def indices(g: Graph, layer: Hashed) -> str:
    """The place in the pool of each entry, int64."""
    count, buckets = math.prod(layer.shape), layer.buckets
    if not layer.balanced:
        upper = g.op("Cast", _shift(g, stream(g, layer.seed, hashes.INDICES, count), 32), to=TensorProto.INT64)
        product = g.op("Cast", g.op("Mul", upper, g.integer(buckets)), to=TensorProto.UINT64)
        return g.op("Cast", _shift(g, product, 32), to=TensorProto.INT64)
    least, more = divmod(count, buckets)
    pieces = -(-buckets // PIECE)
    tables = []
    for i, (start, end) in enumerate(itertools.pairwise(buckets * i // pieces for i in range(pieces + 1))):
        entries = least * (end - start) + min(more, end) - min(more, start)
        table = g.op("Mod", permutation(g, layer.seed + (i << 32), entries), g.integer(end - start))
        tables.append(g.op("Add", table, g.integer(start)) if start else table)
    return g.op("Concat", *tables, axis=0) if pieces > 1 else tables[0]


def signs(g: Graph, seed: int, count: int) -> str:
    """+1 or -1 of each entry, float32."""
    upper = g.op("Cast", _shift(g, stream(g, seed, hashes.SIGNS, count), 63), to=TensorProto.FLOAT)
    return g.op("Sub", g.constant(1.0), g.op("Mul", upper, g.constant(2.0)))


def stream(g: Graph, seed: int, number: int, count: int) -> str:
    """`count` outputs of splitmix64, uint64; the seed of the stream is worked out here."""
    start = int(hashes.splitmix64(seed, number + 1)[number])
    z = g.op("Mul", _range(g, 1, count + 1), g.integer(hashes.GAMMA))
    z = g.op("Cast", g.op("Add", z, g.integer(start)), to=TensorProto.UINT64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = g.op("Cast", g.op("BitwiseXor", z, _shift(g, z, shift)), to=TensorProto.INT64)
        z = g.op("Cast", g.op("Mul", z, g.integer(factor)), to=TensorProto.UINT64)
    return g.op("BitwiseXor", z, _shift(g, z, 31))


def permutation(g: Graph, seed: int, count: int) -> str:
    """Where each of `count` entries goes, int64: the Feistel network, again for what is not back yet."""
    rows = max(1, math.isqrt(count))
    columns = -(-count // rows)
    steps = stream(g, seed, hashes.INDICES, 2 * (rows + columns))
    steps = g.op("Cast", _shift(g, steps, 1), to=TensorProto.INT64)
    moves, start = [], 0
    for length, modulus in ((columns, rows), (rows, columns)) * 2:
        part = g.op("Slice", steps, g.ints(start), g.ints(start + length))
        moves.append(g.op("Mod", part, g.integer(modulus)))
        start += length
    places = _feistel(g, _range(g, 0, count), moves, rows, columns)
    for _ in range(_rounds(seed, count, rows, columns)):
        outside = g.op("GreaterOrEqual", places, g.integer(count))
        places = g.op("Where", outside, _feistel(g, places, moves, rows, columns), places)
    return places


def _feistel(g: Graph, places: str, moves: list[str], rows: int, columns: int) -> str:
    row, column = (g.op(kind, places, g.integer(columns)) for kind in ("Div", "Mod"))
    for by_column, by_row in (moves[:2], moves[2:]):
        row = g.op("Mod", g.op("Add", row, g.op("Gather", by_column, column)), g.integer(rows))
        column = g.op("Mod", g.op("Add", column, g.op("Gather", by_row, row)), g.integer(columns))
    return g.op("Add", g.op("Mul", row, g.integer(columns)), column)


def _rounds(seed: int, count: int, rows: int, columns: int) -> int:
    """How often the network has to be applied again until no entry is outside."""
    steps = (hashes.stream(seed, hashes.INDICES, 2 * (rows + columns)) >> np.uint64(1)).astype(np.int64)
    moves = np.split(steps, np.cumsum([columns, rows, columns]))
    moves = [move % (columns if turn % 2 else rows) for turn, move in enumerate(moves)]
    places, rounds = hashes.feistel_round(np.arange(count, dtype=np.int64), moves), 0
    while len(places := places[places >= count]):
        places, rounds = hashes.feistel_round(places, moves), rounds + 1
    return rounds


def _shift(g: Graph, z: str, bits: int) -> str:
    return g.op("BitShift", z, g.constant(bits, np.uint64), direction="RIGHT")


def _range(g: Graph, start: int, end: int) -> str:
    return g.op("Range", g.integer(start), g.integer(end), g.integer(1))
