"""Smoothing: the formula by numpy, the same outputs, and a smaller error of int8 where a channel is an outlier."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from asrcompress.compression import Plan, activations, compress, fold
from asrcompress.compression.smoothing import smooth
from asrcompress.errors import UserError
from tests.compression.models_of_tests import Normed, net, normed


def batches(dtype: torch.dtype = torch.float32) -> list[tuple[Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(4, 30, 16, generator=generator).to(dtype),) for _ in range(3)]


def inputs(model: nn.Module, path: str, data: list[tuple[Tensor]]) -> np.ndarray:
    """All rows that a layer is given."""
    found: list[Tensor] = []
    layer = model.get_submodule(path)
    handle = layer.register_forward_pre_hook(lambda _, args: found.append(args[0].flatten(0, 1)))
    for batch in data:
        model(*batch)
    handle.remove()
    return torch.cat(found).detach().double().numpy()


@pytest.mark.parametrize("strength", [0.5, 0.8])
def test_the_scales_are_those_of_the_paper_and_the_outputs_stay(strength: float) -> None:
    model, data = normed().double(), batches(torch.float64)
    smoothed = smooth(model, data, strength)
    for x in (data[0][0], 3 * torch.randn(7, 16, dtype=torch.float64)):
        torch.testing.assert_close(smoothed(x), model(x), rtol=1e-9, atol=1e-9)
    both = np.abs(np.concatenate([getattr(model, path).weight.detach().numpy() for path in ("left", "right")])).max(0)
    wanted = np.abs(inputs(model, "left", data)).max(0) ** strength / both ** (1 - strength)
    np.testing.assert_allclose(inputs(smoothed, "left", data), inputs(model, "left", data) / wanted, rtol=1e-9)
    np.testing.assert_allclose(smoothed.right.weight.detach(), model.right.weight.detach() * wanted, rtol=1e-9)
    wanted = (np.abs(inputs(model, "down", data)).max(0) ** strength
              / np.abs(model.down.weight.detach().numpy()).max(0) ** (1 - strength))
    np.testing.assert_allclose(inputs(smoothed, "down", data), inputs(model, "down", data) / wanted, rtol=1e-9, atol=0)
    assert torch.equal(smoothed.last.weight, model.last.weight) and not model.first._forward_pre_hooks


def with_outliers() -> Normed:
    """Two channels of a norm are 60 times as large as the others, and the weights that read them small."""
    model = normed()
    with torch.no_grad():
        for norm, layers in ((model.first, (model.left, model.right)), (model.second, (model.up,))):
            norm.weight[2:4] *= 60
            norm.bias[2:4] *= 60
            for layer in layers:
                layer.weight[:, 2:4] /= 60
        model.up.weight[5] *= 60
        model.up.bias[5] *= 60
        model.down.weight[:, 5] /= 60
    return model


def error_of_int8(model: nn.Module, wanted: Tensor, data: list[tuple[Tensor]]) -> float:
    """Relative error of the outputs with int8 weights and inputs."""
    small, _ = compress(model, Plan(quantization="int8"))
    small = activations.apply(small, activations.observe(small, data))
    return float((small(*data[0]) - wanted).detach().norm() / wanted.norm())


def test_int8_loses_less_where_channels_are_outliers() -> None:
    model, data = with_outliers(), batches()
    wanted = model(*data[0]).detach()
    before, after = error_of_int8(model, wanted, data), error_of_int8(smooth(model, data), wanted, data)
    assert after < 0.3 * before
    assert before > 0.02 > after


def test_svd_is_smoothed_and_quantized_weights_are_left_alone() -> None:
    data = batches()
    small, _ = compress(with_outliers(), Plan("svd", None, options={"rank": 4}))
    smoothed = smooth(small, data)
    torch.testing.assert_close(smoothed(*data[0]), small(*data[0]), rtol=1e-4, atol=1e-4)
    assert not torch.equal(smoothed.up.structure.right, small.up.structure.right)
    quantized, _ = compress(with_outliers(), Plan(quantization="int8", quantization_include=("right.*", "down.*")))
    smoothed = smooth(quantized, data)
    assert torch.equal(smoothed.first.weight, quantized.first.weight)
    assert not torch.equal(smoothed.second.weight, quantized.second.weight)
    torch.testing.assert_close(smoothed(*data[0]), quantized(*data[0]), rtol=1e-4, atol=1e-4)


def test_a_channel_that_is_never_used_stays() -> None:
    model = normed()
    with torch.no_grad():
        model.first.weight[3] = model.first.bias[3] = 0
        model.up.weight[:, 2] = 0
    smoothed = smooth(model, batches())
    assert all(torch.isfinite(one).all() for one in smoothed.state_dict().values())
    assert torch.equal(smoothed.left.weight[:, 3], model.left.weight[:, 3])
    torch.testing.assert_close(smoothed(*batches()[0]), model(*batches()[0]), rtol=1e-4, atol=1e-4)


def test_where_nothing_can_be_smoothed_a_sentence_says_why() -> None:
    quantized, _ = compress(normed(), Plan(quantization="int8"))
    folded = fold(normed())
    folded.channel_pairs = lambda: ()  # type: ignore[method-assign]
    for model, why in ((quantized, "its weight is quantized"), (net(), "what reads its norms"), (folded, "folded")):
        with pytest.raises(UserError, match=f"no layer of this model can be smoothed .*{why}"):
            smooth(model, batches())
    with pytest.raises(UserError, match="strength is 2"):
        smooth(normed(), batches(), 2)
