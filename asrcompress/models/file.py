"""The model file: safetensors, with the model's config as JSON in its metadata."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from asrcompress.errors import UserError
from asrcompress.files import atomic, existing
from asrcompress.models.base import AcousticModel


def save(path: Path | str, model: AcousticModel) -> None:
    tensors = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    with atomic(path) as temporary:
        temporary.write_bytes(serialise(tensors, {"config": json.dumps(model.config)}))


def read(path: Path | str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(config, tensors) of a model file; safetensors checks every length before it allocates."""
    existing(path, "the model file")
    try:
        with safe_open(path, framework="pt") as file:
            config = json.loads((file.metadata() or {})["config"])
            return config, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{path} is not a model file of asrcompress or is damaged ({error}); make it again") from None
