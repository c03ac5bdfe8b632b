"""Against numpy's half precision."""

import numpy as np
import pytest
import torch

from asrcompress.compression import quantization
from asrcompress.compression.packed.container import coding
from asrcompress.errors import UserError


def test_rounding_is_numpys_and_takes_two_bytes() -> None:
    w = torch.randn(30, 20) * torch.logspace(-9, 4, 20)
    one = quantization.fit("float16", w)
    np.testing.assert_array_equal(one.tensor().detach().numpy(), w.numpy().astype(np.float16).astype(np.float32))
    entry, stream = coding.encode(one, "raw", {})
    assert len(stream) == 2 * w.numel() and entry["parts"][0]["type"] == "float16"


def test_what_half_precision_cannot_reach_is_said() -> None:
    with pytest.raises(UserError, match="65504"):
        quantization.fit("float16", torch.tensor([[1e5]]))
