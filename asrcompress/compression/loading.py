"""loading: one function for every model file."""

from pathlib import Path

from torch import nn

from asrcompress import models
from asrcompress.compression import activations, modules, packed, quantization
from asrcompress.errors import UserError


def load(path: Path | str, build: packed.Build = models.build) -> nn.Module:
    """The model of any file of ours, in eval mode: a model file, with or without compressed layers, or a packed file.

    `build(config)` makes the dense model; give your own for a model family that this package does not know.
    """
    if packed.is_packed(path):
        return packed.load(path, build)
    config, tensors = models.read(path)
    model = quantization.apply_config(modules.restore(build(config), config.get("layers") or {}), config.get("quantization") or {})
    activations.restore(model, config.get("activations") or {})
    model.config = config  # type: ignore[assignment]
    try:
        models.load_stored(model, tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} does not hold what its config asks for ({reason}); make it again") from None
    return model.eval()
