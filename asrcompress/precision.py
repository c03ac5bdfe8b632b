"""Which precision a device is fast in: bfloat16 where it multiplies that in hardware, else float32.

A processor without bfloat16 instructions emulates them: a convolution then takes about 12 times as long as in float32.
Everything that computes in lower precision asks here: training, distillation, features made from a model.
"""

import os
from contextlib import AbstractContextManager
from typing import Literal

import torch

Precision = Literal["auto", "bf16-mixed", "32-true"]
X86 = ("x86_64", "amd64", "i386", "i686")
# What ONEDNN_MAX_CPU_ISA may limit oneDNN to that has bfloat16 products: ALL, DEFAULT, AVX512_CORE_BF16 and above.
LIMITS_WITH_BFLOAT16 = ("ALL", "DEFAULT", "AVX10", "AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX512_CORE_AMX")


def resolve(precision: str, device: str = "cpu") -> str:
    """"bf16-mixed" or "32-true" for `auto` on a device ("cpu", "cuda"); any other precision as it is."""
    if precision != "auto":
        return precision
    return "bf16-mixed" if has_bfloat16(device) else "32-true"


def has_bfloat16(device: str = "cpu") -> bool:
    """Whether a device ("cpu", "cuda") has bfloat16 products in hardware."""
    if device == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and _cpu_has_bfloat16()


def _cpu_has_bfloat16() -> bool:
    """oneDNN also says yes where it emulates (AVX-512 without BF16), so on x86 the instructions themselves count."""
    import platform

    if not torch.ops.mkldnn._is_mkldnn_bf16_supported() or not _limit_allows():
        return False
    if platform.machine().lower() not in X86:
        return True
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _limit_allows() -> bool:
    """Whether the environment leaves oneDNN its bfloat16 instructions."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "DEFAULT"
    return limit.upper().startswith(LIMITS_WITH_BFLOAT16)


def autocast(device: str = "cpu") -> AbstractContextManager[object]:
    """Products inside in the precision `auto` of a device ("cpu", "cuda"): bfloat16, or float32 also inside another
    autocast."""
    return torch.autocast(device, torch.bfloat16, enabled=has_bfloat16(device))
