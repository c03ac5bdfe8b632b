"""Layers that change while a model is trained: put in place, rebuilt from a checkpoint, followed by the optimizer."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from asrcompress.compression import modules, record
from asrcompress.compression.structures import Structure


def place(model: nn.Module, path: str, structure: Structure) -> None:
    """Let `structure` stand at a path where a dense weight or another structure stands."""
    old = modules.structured(model).get(path)
    if old is None:
        modules.replace_layer(model, path, structure)
    else:
        owner = next(module for module in model.modules() if getattr(module, "structure", None) is old)
        owner.structure = structure.train(old.training)


def rebuild(model: Any, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Give a model the layers that `record.layers` wrote into a checkpoint; their numbers are still to be loaded."""
    if entries != record.layers(model):
        for path, structure in record.build_layers(entries).items():
            place(model, path, structure)


def regroup(optimizer: torch.optim.Optimizer, groups: Sequence[list[nn.Parameter]]) -> None:
    """Let the optimizer's groups hold these parameters, in the order that a new optimizer would have.

    What it knows of those that stay, it keeps; those that are new start without moments, as at the first step. (Turning
    the moments of a weight into those of its factors is possible, but the models trained worse.)
    """
    for group, parameters in zip(optimizer.param_groups, groups, strict=True):
        group["params"] = parameters
    alive = {parameter for group in groups for parameter in group}
    for parameter in [parameter for parameter in optimizer.state if parameter not in alive]:
        del optimizer.state[parameter]
