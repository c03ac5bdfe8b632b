"""Acoustic models, built from a plain config, and the model file that carries it.

    model = build({"model": "tdnn", "features": 80, "vocab": 40, "stack": [...]})
    save("model.safetensors", model); model = load("model.safetensors")
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asrcompress.errors import UserError
from asrcompress.models.base import AcousticModel
from asrcompress.models.conv import conv1d
from asrcompress.models.file import load_stored, read, save, stored

FAMILIES = {"tdnn": "TDNN"}
__all__ = ["AcousticModel", "build", "conv1d", "load", "load_stored", "read", "save", "stored"]


def build(config: Mapping[str, Any]) -> AcousticModel:
    """The model of a config: `model` names the family, the other keys are that family's own."""
    family = config.get("model")
    if family not in FAMILIES:
        raise UserError(f"there is no model family '{family}'; the key 'model' is one of {', '.join(FAMILIES)}")
    try:
        return getattr(importlib.import_module(f"asrcompress.models.{family}"), FAMILIES[family])(config)
    except (KeyError, TypeError) as error:
        raise UserError(f"the config of model '{family}' is not complete or has an unknown key: {error}") from None


def load(path: Path | str) -> AcousticModel:
    """The model of a file without compressed layers, in eval mode. `asrcompress.compression.load` takes any file."""
    config, tensors = read(path)
    if config.get("layers"):
        raise UserError(f"{path} holds compressed layers; load it with asrcompress.compression.load")
    model = build(config)
    try:
        load_stored(model, tensors)
    except RuntimeError as error:
        raise UserError(f"{path} does not hold the tensors that its config asks for ({error}); make it again") from None
    return model.eval()
