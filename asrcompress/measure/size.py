"""How many parameters a model holds, and how many bytes its file takes."""

from pathlib import Path
from typing import Any

from torch import nn

from asrcompress.compression import quantization
from asrcompress.compression.parametrization import copy_model
from asrcompress.files import require_file


def of_model(model: nn.Module) -> dict[str, int]:
    """`parameters`, `numbers` and `dense_bytes` of a model, compressed or not.

    parameters   what training adjusts; a compressed layer's structure says how many it stores
    numbers      those and the floating-point buffers that a file needs as well (BatchNorm's statistics)
    dense_bytes  float32 bytes of `numbers` for the dense model that this one stands for
    """
    model = quantization.materialize(copy_model(model))  # of a quantized tensor, what it makes: so it is in a file
    structures: list[Any] = [module.structure for module in model.modules() if hasattr(module, "structure")]
    inside = {id(tensor) for structure in structures for tensor in (*structure.parameters(), *structure.buffers())}
    rest = sum(p.numel() for p in model.parameters() if id(p) not in inside)
    buffers = sum(b.numel() for b in model.buffers() if b.is_floating_point() and id(b) not in inside)
    parameters = rest + sum(structure.num_parameters() for structure in structures)
    dense = rest + sum(structure.dense().numel() for structure in structures)
    return {"parameters": parameters, "numbers": parameters + buffers, "dense_bytes": 4 * (dense + buffers)}


def of_file(path: Path | str) -> dict[str, Any]:
    """`packed_bytes`: the file's size on disk, and nothing else's. Errors: UserError where there is no file."""
    return {"packed_bytes": require_file(path, "the packed model").stat().st_size}
