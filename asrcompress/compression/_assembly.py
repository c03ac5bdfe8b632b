"""assembly: the model in which every weight is stored as a byte budget chose."""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from asrcompress.compression import modules, quantization, record
from asrcompress.compression.budget.bytes import Choice
from asrcompress.compression.choices import Maker, Part, Way, parameter_of
from asrcompress.compression.compress import LayerRecord
from asrcompress.compression.packed import coding, writer
from asrcompress.compression.parametrization import copy_model
from asrcompress.compression.structures import Structure, relative_error

VECTORS = ""  # the part that is all tensors of one dimension; its `how` is what they are stored as


class Assembly:
    """Models of choices: the numbers of a way are found once."""

    def __init__(self, model: nn.Module, parts: Mapping[str, Part], maker: Maker) -> None:
        self.dense, self.parts, self.maker = model, parts, maker
        self.made: dict[tuple[str, str], Structure] = {}

    def structure(self, path: str, way: Way) -> Structure:
        """What makes the weight at a path, quantized."""
        key = path, str(way)
        if key not in self.made:
            made = self.maker.make(self.parts[path], way)
            assert made is not None
            self.made[key] = made[0]
        return self.made[key]

    def model(self, chosen: Mapping[str, Choice]) -> nn.Module:
        """In eval mode, with its quantizers; `record` says how it is stored."""
        small = copy_model(self.dense)
        for path, part in self.parts.items():
            way = chosen[path].how
            _place(small, part, way, copy.deepcopy(self.structure(path, way)), self.maker.seed)
        record.set_coder(small, coding.SMALLEST, vectors=chosen[VECTORS].how)
        return small.eval()

    def length(self, chosen: Mapping[str, Choice]) -> int:
        """Bytes of the file."""
        return writer.length(self.model(chosen))

    @torch.no_grad()
    def report(self, chosen: Mapping[str, Choice]) -> list[LayerRecord]:
        """A record of each weight."""
        rows = []
        for path, part in self.parts.items():
            choice, layer = chosen[path], self.structure(path, chosen[path].how)
            quantizers = quantization.attached(layer)
            after = sum(math.prod(one.shape) for one in quantizers.values()) or layer.num_parameters()
            rows.append(LayerRecord(
                path, tuple(part.weight.shape), choice.how.structure, part.weight.numel(), after,
                getattr(layer, "rank", None), relative_error(layer.dense(), part.weight), part.fixed,
                quantization=f"{choice.how.quantization} {choice.how.said}".strip(), bytes=choice.bytes,
                damage=choice.damage))
        return rows


def _place(small: nn.Module, part: Part, way: Way, layer: Structure, seed: int) -> None:
    """Let a quantized structure make the weight of a part, in place."""
    if part.structure is not None:
        owner: Any = modules.holder(small, part.path)
        owner.structure = layer
    elif way.structure != "dense":
        modules.replace_layer(small, part.path, layer)
    elif way.quantization != "float32":
        path = parameter_of(small, part.path)
        parameter, [one] = small.get_parameter(path), quantization.attached(layer).values()
        if tuple(one.shape) != tuple(parameter.shape):  # the part is a matrix or a convolution over time
            one = quantization.fit(way.quantization, parameter, seed, **way.options)
        quantization.attach(small, path, one)
