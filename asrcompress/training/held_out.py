"""The loss of a model on held-out speech, as a function of the model alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lhotse import CutSet

from asrcompress.data.batches import drawn, eval_loader
from asrcompress.data.utterances import Utterances
from asrcompress.lang import lexicon as lexicons
from asrcompress.options import require
from asrcompress.training.criteria.ctc import CTC


def ctc_loss(data: Path, name: str, lang: Path, minutes: float = 20, seed: int = 0) -> Callable[[Any], float]:
    """loss(model): CTC in nats a frame on a prepared set, or `minutes` of it, utterances drawn by the seed.

    The features are read once. Errors: UserError where the set or the lang folder is missing or no utterance is left.
    """
    symbols, encode = lexicons.of_lang(lang)
    require(minutes > 0, f"{minutes:g} minutes of held-out speech are none; give more")
    cuts = drawn(Utterances(data, [name], encode), minutes, seed)
    batches = list(eval_loader(CutSet.from_cuts(cuts), encode, batch_seconds=100))
    criterion = CTC(len(symbols))

    @torch.no_grad()
    def loss(model: Any) -> float:
        total = frames = 0.0
        for batch in batches:
            log_probs, lens = model(batch["x"], batch["x_lens"])
            require(log_probs.shape[2] == len(symbols), f"the model has {log_probs.shape[2]} tokens and {lang} has "
                    f"{len(symbols)}; give the lang folder that it was trained with")
            result = criterion(log_probs, lens, batch["targets"], batch["target_lens"])
            total += float(result["loss"] * result["frames"])
            frames += float(result["frames"])
        return total / max(1.0, frames)

    return loss
