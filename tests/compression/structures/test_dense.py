import pytest
import torch

from asrcompress.compression import structures
from asrcompress.compression.structures import CannotShrink


def test_it_is_the_weight() -> None:
    for shape in ((6, 5), (6, 5, 3)):
        w = torch.randn(*shape)
        layer = structures.fit("dense", w, size=1)
        assert torch.equal(layer.dense(), w) and layer.dense() is not w
        assert layer.num_parameters() == layer.macs(1) == w.numel()
    x = torch.randn(2, 5, 20)
    torch.testing.assert_close(layer.conv1d(x, 2, 1), torch.nn.functional.conv1d(x, w, stride=2, padding=1))
    torch.testing.assert_close(structures.fit("dense", w[:, :, 0])(x[0].T), x[0].T @ w[:, :, 0].T)


def test_it_cannot_shrink() -> None:
    with pytest.raises(CannotShrink, match="the smallest is 1"):
        structures.fit("dense", torch.randn(3, 3), size=0.5)


def test_from_scratch_has_torchs_variance() -> None:
    drawn = structures.init("dense", (300, 200), seed=1).dense().std()
    assert float(drawn.detach()) == pytest.approx(float(torch.nn.Linear(200, 300).weight.detach().std()), rel=0.03)
