"""A tiny TDNN with any structures, as the export tests share it."""

from pathlib import Path
from typing import Any

import torch

from asrcompress import compression, models
from asrcompress.compression import modules, structures
from asrcompress.compression.folding import fold
from asrcompress.lang.tokens import write_symbols
from asrcompress.models.tdnn import TDNN

VOCAB = 7
STACK: list[dict[str, Any]] = [{"dim": 24, "taps": 5, "stride": 2}, {"dim": 32, "taps": 3, "stride": 2},
                               {"dim": 32, "taps": 3, "dilation": 2, "repeat": 2}]


def tdnn(**changes: Any) -> TDNN:
    """Folded, with BatchNorms that did something."""
    torch.manual_seed(0)
    config = {"model": "tdnn", "features": 80, "vocab": VOCAB, "bypass": 0.66, "stack": STACK, **changes}
    model = models.build(config)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.normal_(module.bias)
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    torch.nn.init.normal_(model.get_submodule("output").weight)  # posteriors that are far from flat
    return fold(model.eval())  # type: ignore[return-value]


def compressed(structure: str, size: float = 0.5, **options: Any) -> TDNN:
    """`tdnn` with its layers and output in a structure; what cannot shrink so far stays dense."""
    model = tdnn()
    how = {"dense": {}, "tied": {"rank": 4}}.get(structure, {"size": size})
    for path, weight, _ in list(modules.weights(model)):
        try:
            layer = structures.init(structure, weight.shape, **how, **options)
        except structures.CannotShrink:
            continue
        loud = torch.full(weight.shape[:1], 2.0)  # so that several tokens win
        modules.replace_layer(model, path, structures.scaled(layer, loud))
    return model.eval()


def packed(folder: Path, model: TDNN) -> tuple[Path, Path]:
    """A packed file, and a lang folder with its tokens."""
    compression.packed.save(folder / "model.packed", model)
    write_symbols(folder / "lang" / "tokens.txt", ["<blk>", "AA", "B", "K", "S", "T", "IY"])
    return folder / "model.packed", folder / "lang"
