"""How outputs are compared: by the largest difference, or by the mean where a function jumps."""

import pytest
import torch
from torch import Tensor, nn

from asrcompress.compression import folding
from asrcompress.compression.packed import verify
from asrcompress.errors import UserError


class Step(nn.Module):
    """x + shift, and 1 more where that is not below 0."""

    def __init__(self, jumps: bool, shift: float = 0.0) -> None:
        super().__init__()
        self.jumps, self.shift = jumps, shift

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift + (x + self.shift >= 0)

    def batchnorm_pairs(self) -> list[tuple[str, str]]:
        return []


def test_a_value_that_rounding_moves_over_a_jump_is_no_other_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "fold", lambda net: Step(net.jumps, 1e-6))
    x = torch.linspace(-1, 1, 5000)
    x[10] = -5e-7
    assert verify.jumps(nn.Sequential(Step(True))) and not verify.jumps(nn.Sequential(Step(False)))
    verify.folded(Step(True), Step(True), "FILE", (x,))
    with pytest.raises(UserError, match="the outputs differ by 0.5"):
        verify.folded(Step(False), Step(False), "FILE", (x,))
    with pytest.raises(UserError, match="the outputs differ by"):  # everywhere
        monkeypatch.setattr(folding, "fold", lambda net: Step(net.jumps, 0.01))
        verify.folded(Step(True), Step(True), "FILE", (x,))


def test_difference() -> None:
    ours, theirs = [torch.tensor([1.0, 2.0, 4.0])], [torch.tensor([1.0, 2.0, 3.0])]
    assert verify.difference(ours, theirs) == 0.25
    assert verify.difference(ours, theirs, mean=True) == pytest.approx(0.25 / 3)
    for other in (torch.tensor([1.0, 2.0, float("nan")]), torch.zeros(2)):
        assert verify.difference(ours, [other], mean=True) == float("inf")
