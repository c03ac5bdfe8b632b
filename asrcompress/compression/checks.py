"""checks: what a model has to be so that it can be compressed, and whether the result computes what its report says."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from asrcompress.compression import modules, quantization
from asrcompress.compression.calibration import in_eval_mode
from asrcompress.compression.modules import StructuredConv1d, StructuredLinear
from asrcompress.compression.packed import verify
from asrcompress.errors import UserError

CLOSE = {torch.float16: 0.05, torch.bfloat16: 0.2}  # relative error of a layer's outputs; 0.01 in other dtypes
LARGEST = 30.0  # times the norm of the dense model's: an output that compression, which loses energy, does not explain


def can_be_compressed(model: nn.Module) -> None:
    """Errors: UserError for a model without values (meta, not initialized) or whose modules cannot be changed."""
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise UserError("a TorchScript model cannot be changed; compress the model that it was made from")
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise UserError(f"the parameter '{name}' has no shape yet; run the model on an input first")
        if parameter.is_meta:
            raise UserError(f"the parameter '{name}' is on the meta device, without values; load weights first")


@torch.no_grad()
def layers(model: nn.Module) -> None:
    """Compare every compressed layer with the dense weight that it stands for, on random inputs.

    Errors: UserError where outputs are not finite, of another shape, or not those of the weight.
    """
    for path, module in model.named_modules():
        if isinstance(module, StructuredLinear | StructuredConv1d):
            weight = module.structure.dense()
            _compare(path, module.structure.name, *_both(module, weight))
    for path, structure in modules.structured(model).items():
        _compare(path, structure.name, modules.weight_at(model, path), structure.dense())


def _both(module: Any, weight: Tensor) -> tuple[Tensor, Tensor]:
    """What a compressed layer makes of a random input, and what its dense weight does."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(module, StructuredLinear):
        x = torch.randn(3, module.in_features, generator=generator).to(weight)
        return module.forward(x), functional.linear(x, weight, module.bias)
    frames = module.dilation[0] * (module.kernel_size[0] - 1) + 3
    x = torch.randn(1, module.in_channels, frames, generator=generator).to(weight)
    return module.forward(x), functional.conv1d(x, weight, module.bias, module.stride, module.padding, module.dilation)


def _compare(path: str, name: str, ours: Tensor, theirs: Tensor) -> None:
    if not (torch.isfinite(ours).all() and torch.isfinite(theirs).all()):
        raise UserError(f"{path}: the outputs of its {name} are not finite; exclude the layer, or change structure")
    far = ours.shape != theirs.shape or (ours - theirs).double().norm() > (
        CLOSE.get(ours.dtype, 0.01) * theirs.double().norm() + 1e-6)
    if far:
        raise UserError(f"{path}: its {name} does not compute what its weight says; exclude the layer and report this")


@torch.no_grad()
def quantizers(model: nn.Module, before: Mapping[str, Tensor]) -> None:
    """Compare every quantized tensor with what it was: shape, dtype, finite, not many times as large.

    Errors: UserError that names the tensor.
    """
    for path, one in quantization.attached(model).items():
        made, old = one(), before.get(path)
        if not torch.isfinite(made).all():
            raise UserError(f"{path}: its {one.name} values are not finite; exclude the tensor")
        if old is not None and (made.shape != old.shape or made.dtype != old.dtype or
                                made.double().norm() > 4 * old.double().norm() + 1e-6):
            raise UserError(f"{path}: its {one.name} values are of another shape, dtype or size than the tensor; "
                            "exclude the tensor and report this")


def outputs(model: nn.Module, small: nn.Module, args: Sequence[Any], keywords: Mapping[str, Any]) -> None:
    """Compare the outputs of a whole model before and after compression: shape, finite, order of magnitude.

    Errors: UserError that says what differs. A model that cannot be run on the example itself is not compared.
    """
    try:
        with in_eval_mode(model):
            before = verify.outputs(model, args, keywords)
    except Exception:
        return
    with in_eval_mode(small):
        after = verify.outputs(small, args, keywords)
    for old, new in zip(before, after, strict=True):
        if old.shape != new.shape:
            raise UserError(f"the compressed model gives {tuple(new.shape)} where the model gives {tuple(old.shape)}")
        if torch.isfinite(old).all() and not torch.isfinite(new).all():
            raise UserError("the compressed model gives values that are not finite; compress less, or fewer layers")
        if torch.isfinite(old).all() and new.double().norm() > LARGEST * old.double().norm() + 1e-6:
            times = float(new.double().norm() / old.double().norm())
            raise UserError(f"the outputs of the compressed model are {times:.3g} times as large as the model's; "
                            "compress less, or fewer layers")
