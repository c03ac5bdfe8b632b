"""k2 graphs on disk: a numpy `.npz` without pickle, whose members carry a CRC.

Members: `arcs` int32 (N, 4) as k2 keeps them (from, to, label, bits of the float32 score), then either `outputs` int32
(N,) or, where an arc has any number of output labels, `outputs` with `splits` int32 (N + 1,); `kind`, one word.
"""

from pathlib import Path

import k2
import numpy as np
import torch
from _k2.ragged import create_ragged_shape2

from asrcompress.errors import UserError
from asrcompress.files import atomic, read_npz, require_file


def save(path: Path | str, fsa: k2.Fsa, kind: str) -> None:
    """Write a single graph; `kind` is checked by `load`, so that HLG and G are not mistaken for each other."""
    members = {"kind": np.array(kind), "arcs": fsa.arcs.values().numpy()}
    outputs = getattr(fsa, "aux_labels", None)
    if isinstance(outputs, k2.RaggedTensor):
        members |= {"outputs": outputs.values.numpy(), "splits": outputs.shape.row_splits(1).numpy()}
    elif outputs is not None:
        members["outputs"] = outputs.numpy()
    with atomic(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **members)


def load(path: Path | str, kind: str) -> k2.Fsa:
    """Read a graph of that kind; UserError where the file is damaged or something else."""
    members = _members(require_file(path, "the graph"), kind)
    fsa = k2.Fsa(torch.from_numpy(members["arcs"]))
    if "outputs" in members:
        outputs = torch.from_numpy(members["outputs"])
        if "splits" in members:
            shape = create_ragged_shape2(torch.from_numpy(members["splits"]), None, len(outputs))
            fsa.aux_labels = k2.RaggedTensor(shape, outputs)
        else:
            fsa.aux_labels = outputs
    return fsa


def _members(path: Path, kind: str) -> dict[str, np.ndarray]:
    wrong = UserError(f"the graph {path} is damaged or not a graph; remove it and build it again")
    try:
        members = read_npz(path, "the graph")
    except UserError:
        raise wrong from None
    arcs = members.get("arcs")
    if arcs is None or arcs.ndim != 2 or arcs.shape[1] != 4 or "kind" not in members:
        raise wrong
    if str(members["kind"]) != kind:
        raise UserError(f"{path} is a graph of the kind {members['kind']}, expected {kind}; give the right file")
    return members
