"""The model file: safetensors, with the model's config as JSON in its metadata."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from asrcompress.errors import UserError
from asrcompress.files import atomic, require_file


def stored(model: nn.Module) -> dict[str, Tensor]:
    """What a file holds of a model: its `state_dict()`, but once, by its first name, what several modules share."""
    state = model.state_dict(keep_vars=True)
    return {name: state[name].detach() for name in dict.fromkeys(_first_names(model).values())}


def load_stored(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load what `stored` gave into a model in which the same tensors are shared. RuntimeError where it does not fit."""
    twins = {name: tensors[first] for name, first in _first_names(model).items() if first in tensors}
    model.load_state_dict({**tensors, **twins})


def _first_names(model: nn.Module) -> dict[str, str]:
    """Of every name in the state the first one that the same tensor has."""
    firsts: dict[int, str] = {}
    return {name: firsts.setdefault(id(tensor), name) for name, tensor in model.state_dict(keep_vars=True).items()}


def save(path: Path | str, model: nn.Module) -> None:
    """Write a model that has a `config`, compressed or not: what that says under `layers` is how it is built again."""
    tensors = {name: tensor.contiguous() for name, tensor in stored(model).items()}
    with atomic(path) as temporary:
        temporary.write_bytes(serialise(tensors, {"config": json.dumps(model.config)}))


def read(path: Path | str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(config, tensors) of a model file; safetensors checks every length before it allocates."""
    require_file(path, "the model file")
    try:
        with safe_open(path, framework="pt") as file:
            config = json.loads((file.metadata() or {})["config"])
            return config, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{path} is not a model file of asrcompress or is damaged ({error}); make it again") from None
