"""What int4 adds to int8: groups."""

import torch

from asrcompress.compression import quantization
from asrcompress.compression.packed.container import coding


def test_groups_lower_the_error_and_cost_half_precision_scales() -> None:
    w = torch.randn(16, 256, generator=torch.Generator().manual_seed(0)) * torch.rand(16, 8).repeat_interleave(32, 1)
    grouped, whole = quantization.fit("int4", w), quantization.fit("int4", w, group=0)
    errors = [float((one.tensor().detach() - w).norm()) for one in (grouped, whole)]
    assert errors[0] < 0.8 * errors[1]
    sizes = [len(coding.encode(one, "raw", {})[1]) for one in (grouped, whole)]
    assert sizes[0] == w.numel() // 2 + 9 + 16 * 8 * 2 + 4 and sizes[1] == w.numel() // 2 + 9 + 16 * 2 + 4
