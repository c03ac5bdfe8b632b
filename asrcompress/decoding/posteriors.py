"""Run a model over a prepared set into a posterior archive."""

import time
from pathlib import Path

import torch
from lhotse import CutSet, MonoCut
from lhotse.dataset.collation import collate_features
from rich.progress import track

from asrcompress.decoding.archive import ArchiveWriter
from asrcompress.models.base import AcousticModel


def batches_of(cuts: CutSet, seconds: float) -> list[list[MonoCut]]:
    """The cuts, longest first, in batches of at most `seconds` of audio with padding counted."""
    batches: list[list[MonoCut]] = []
    for cut in sorted(cuts, key=lambda cut: -cut.duration):
        if not batches or (len(batches[-1]) + 1) * batches[-1][0].duration > seconds:
            batches.append([])
        batches[-1].append(cut)
    return batches


@torch.inference_mode()
def write(model: AcousticModel, cuts: CutSet, out: Path, batch_seconds: float = 200) -> float:
    """Write the log posteriors of every cut, under its supervision's id; the real-time factor of the network,
    0 without a cut."""
    audio = wall = 0.0
    with ArchiveWriter(out, model.config["vocab"], {"frame_seconds": 0.01 * model.subsampling}) as archive:
        for batch in track(batches_of(cuts, batch_seconds), description=f"posteriors of {out.stem}", transient=True):
            x, lens = collate_features(CutSet.from_cuts(batch))
            started = time.perf_counter()
            log_probs, out_lens = model(x, lens.long())
            wall += time.perf_counter() - started
            audio += sum(cut.duration for cut in batch)
            for cut, row, length in zip(batch, log_probs, out_lens.tolist(), strict=True):
                archive.add(cut.supervisions[0].id, row[:length].numpy())
    return wall / audio if audio else 0.0
