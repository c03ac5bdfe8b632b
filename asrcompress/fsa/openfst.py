"""HLG as an OpenFst file (`vector`, `standard`) for sherpa-onnx and kaldi-decoder, without OpenFst.

The device counts labels from 1, because 0 is epsilon there: input label = token id + 1, output label = word id.
k2's final arcs become final weights, costs are negated scores. An arc with several output words is followed by arcs
that read nothing, one for each word after the first. sherpa-onnx searches with a beam of 16: a graph for the beam B has
its costs multiplied by 16 / B, and so have the log-probabilities that a model for it puts out.
"""

import struct
from pathlib import Path

import k2
import numpy as np

from asrcompress.files import atomic

MAGIC = 2125659606
VERSION = 2
BEAM = 16.0  # of sherpa-onnx, which has no option for it
EXPANDED, MUTABLE = 1, 2  # the property bits of every VectorFst; all others may be left unknown


def write_openfst(path: Path | str, graph: k2.Fsa, beam: float = BEAM) -> int:
    """Write the graph, whose start is state 0, for a search with this beam; returns the bytes written."""
    arcs, words = _expanded(graph)
    scores = np.ascontiguousarray(arcs[:, 3]).view("<f4")
    scores = (scores * np.float32(BEAM / beam)).astype("<f4") if beam != BEAM else scores
    ends = arcs[:, 2] == -1
    final_costs = np.full(arcs[:, :2].max(initial=0) + 1, np.inf, dtype="<f4")
    np.minimum.at(final_costs, arcs[ends, 0], -scores[ends])
    going = ~ends
    body = _body(arcs[going], words[going], -scores[going], final_costs)
    header = struct.pack("<i", MAGIC) + _text(b"vector") + _text(b"standard")
    header += struct.pack("<iiQqqq", VERSION, 0, EXPANDED | MUTABLE, 0, len(final_costs), int(going.sum()))
    with atomic(path) as temporary, temporary.open("wb") as stream:
        stream.write(header)
        body.tofile(stream)
    return len(header) + body.nbytes


def _text(text: bytes) -> bytes:
    return struct.pack("<i", len(text)) + text


def _expanded(graph: k2.Fsa) -> tuple[np.ndarray, np.ndarray]:
    """Arcs int32 (N, 4) as k2 keeps them, labels from 1 and epsilon 0, and one output word (N,) each, 0 for none."""
    arcs = graph.arcs.values().clone()
    arcs[:, 2] += arcs[:, 2] >= 0  # before the expansion, which reads 0 as epsilon
    expanded = k2.Fsa(arcs)
    expanded.aux_labels = graph.aux_labels
    if isinstance(graph.aux_labels, k2.RaggedTensor):
        expanded = k2.expand_ragged_attributes(expanded)
    words = expanded.aux_labels.numpy()
    return expanded.arcs.values().numpy(), np.where(words > 0, words, 0)


def _body(arcs: np.ndarray, words: np.ndarray, costs: np.ndarray, final_costs: np.ndarray) -> np.ndarray:
    """Each state as final cost, number of arcs (int64), then (input, output, cost, target) an arc: 4-byte words.

    `arcs` come in the order of their states, as k2 keeps them.
    """
    states, source = len(final_costs), arcs[:, 0].astype(np.int64)
    count = np.bincount(source, minlength=states)
    out = np.zeros(3 * states + 4 * len(arcs), dtype="<i4")
    head = 3 * np.arange(states) + 4 * (np.cumsum(count) - count)
    out[head], out[head + 1] = final_costs.view("<i4"), count
    place = 3 * (source + 1) + 4 * np.arange(len(arcs))
    for column, values in enumerate((arcs[:, 2], words, costs.view("<i4"), arcs[:, 1])):
        out[place + column] = values
    return out
