"""A tiny TDNN and a tiny Conformer with any structures, as the export tests share them."""

from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from asrcompress import compression, models
from asrcompress.compression import modules, structures
from asrcompress.compression.folding import fold
from asrcompress.lang.tokens import write_symbols
from asrcompress.models._lma import LMA
from asrcompress.models.base import AcousticModel
from asrcompress.models.conformer import Conformer
from asrcompress.models.tdnn import TDNN

VOCAB = 7
STACK: list[dict[str, Any]] = [{"dim": 24, "taps": 5, "stride": 2}, {"dim": 32, "taps": 3, "stride": 2},
                               {"dim": 32, "taps": 3, "dilation": 2, "repeat": 2}]


def tdnn(**changes: Any) -> TDNN:
    """Folded, with BatchNorms that did something."""
    return _trained({"model": "tdnn", "features": 80, "vocab": VOCAB, "bypass": 0.66, "stack": STACK, **changes})


def conformer(**changes: Any) -> Conformer:
    """Folded, with norms that did something."""
    return _trained({"model": "conformer", "features": 80, "vocab": VOCAB, "dim": 24, "heads": 3, "hidden": 40,
                     "kernel": 5, "blocks": 2, "front": 16, **changes})


FAMILIES = {"tdnn": tdnn, "conformer": conformer}


def _trained(config: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    model = models.build(config)
    for module in model.modules():
        if isinstance(module, LMA):
            torch.nn.init.normal_(module.change, std=0.02)
        if isinstance(module, _BatchNorm | torch.nn.LayerNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.normal_(module.bias)
        if isinstance(module, _BatchNorm):
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    torch.nn.init.normal_(model.get_submodule("output").weight)  # posteriors that are far from flat
    return fold(model.eval())


def compressed(structure: str, size: float = 0.5, family: str = "tdnn", **options: Any) -> Any:
    """A model with its layers and output in a structure; what stays dense by nature, or cannot shrink so far, does."""
    model = FAMILIES[family]()
    how = {"dense": {}, "tied": {"rank": 4}}.get(structure, {"size": size})
    for path, weight, why in list(modules.weights(model)):
        if why:
            continue
        try:
            layer = structures.init(structure, weight.shape, **how, **options)
        except structures.CannotShrink:
            continue
        loud = torch.full(weight.shape[:1], 2.0)  # so that several tokens win
        modules.replace_layer(model, path, structures.scaled(layer, loud))
    return model.eval()


def packed(folder: Path, model: AcousticModel) -> tuple[Path, Path]:
    """A packed file, and a lang folder with its tokens."""
    compression.packed.save(folder / "model.packed", model)
    write_symbols(folder / "lang" / "tokens.txt", ["<blk>", "AA", "B", "K", "S", "T", "IY"])
    return folder / "model.packed", folder / "lang"
