"""Multiply-adds of a model, counted where they happen: in one forward pass, at every product that torch computes."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.parametrize import ParametrizationList
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from asrcompress.compression.calibration import in_eval_mode
from asrcompress.compression.modules import StructuredConv1d, StructuredLinear
from asrcompress.measure import inputs as examples

aten = torch.ops.aten
VECTORS: dict[Any, Callable[..., int]] = {  # products of vectors, which torch's flop counter leaves out
    aten.mv: lambda matrix, vector: matrix.numel(), aten.dot: lambda one, two: one.numel(),
    aten.addmv: lambda bias, matrix, vector, **_: matrix.numel()}


def macs(model: nn.Module, *arguments: Any, **named: Any) -> int:
    """Multiply-adds of the products of `model(*arguments, **named)`, in eval mode.

    Counted are matrix products and convolutions wherever they are, those of attention and recurrent layers included;
    biases, normalization and activations are not. A compressed layer answers for itself: `structure.macs(frames,
    stride)`, where frames are its output vectors. Making a weight (rebuilding it from a structure, dequantizing it)
    does not count, as inference does that once.
    """
    counter = Counter()
    with _counting(model, counter), torch.no_grad():
        model(*arguments, **named)  # what is made once is made here
        counter.total = 0
        with counter:
            model(*arguments, **named)
    return counter.total


def macs_per_second(model: nn.Module, seconds: float = 20) -> int:
    """Multiply-adds for one second of audio, from an utterance of `seconds`: its padded ends weigh little.

    Errors: UserError for a model whose inputs are not known (`measure.inputs.example`).
    """
    found = examples.example(model, seconds)
    assert found.seconds
    return round(macs(model, **found.arguments) / found.seconds)


class Counter(TorchDispatchMode):
    """While it is open: the multiply-adds of every product, in `total`, except while `paused` is above 0."""

    def __init__(self) -> None:
        super().__init__()
        self.total = self.paused = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kind, kwargs = func._overloadpacket, kwargs or {}
        counted = kind in flop_registry or kind in VECTORS
        if not counted and not self.paused:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        output = func(*args, **kwargs)
        if counted and not self.paused:
            self.total += (VECTORS[kind](*args, **kwargs) if kind in VECTORS else
                           int(flop_registry[kind](*args, **kwargs, out_val=output)) // 2)
        return output


@contextmanager
def _counting(model: nn.Module, counter: Counter) -> Iterator[None]:
    """Eval mode, hooks on what answers for itself, and torch without its fused kernels, whose products nobody sees."""
    fast = torch.backends.mha.get_fastpath_enabled()
    with in_eval_mode(model), ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, StructuredLinear | StructuredConv1d | ParametrizationList):
                for handle in _hooks(module, counter):
                    stack.callback(handle.remove)
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "TF32 acceleration on top of oneDNN")
        stack.enter_context(torch.backends.mkldnn.flags(enabled=False))  # type: ignore[attr-defined]
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        torch.backends.mha.set_fastpath_enabled(False)
        yield


def _hooks(module: nn.Module, counter: Counter) -> list[Any]:
    """Pause counting inside a module; of a compressed layer, add what its structure says."""
    def before(*_: Any) -> None:
        counter.paused += 1

    def after(module: nn.Module, _: Any, output: Tensor) -> None:
        counter.paused -= 1
        if isinstance(module, StructuredLinear | StructuredConv1d):
            stride = module.stride[0] if isinstance(module, StructuredConv1d) else 1
            counter.total += module.structure.macs(output.numel() // module.structure.shape[0], stride)

    return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
