"""The light multi-segment activation against numpy: its function, start, gradients and statistics."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special
from torch import Tensor

import asrcompress
from asrcompress import models
from asrcompress.models._lma import LMA, ContinuousLMA
from asrcompress.training.module import AcousticModule
from tests.models import contract
from tests.models.contract import features

FORMS = [LMA, ContinuousLMA]
STACK = [{"dim": 12, "taps": 5, "stride": 2}, {"dim": 16, "taps": 3, "stride": 2}, {"dim": 16, "taps": 3, "repeat": 2}]
TDNN = {"model": "tdnn", "features": 80, "vocab": 9, "bypass": 0.66, "stack": STACK}
CONFORMER = {"model": "conformer", "features": 80, "vocab": 9, "dim": 16, "heads": 2, "hidden": 24, "kernel": 5,
             "blocks": 2, "front": 12}
BOTH = pytest.mark.parametrize("form", FORMS)


def learned(form: type[LMA], segments: int = 8, mu: float = 0.3, sigma: float = 0.7) -> LMA:
    """A module in eval mode after some training: numbers and statistics that are not those of a new one."""
    torch.manual_seed(0)
    module = form(segments).double().eval()
    torch.nn.init.normal_(module.change)
    module.mu.fill_(mu)
    module.sigma.fill_(sigma)
    return module


def borders_of(mu: float, sigma: float, segments: int) -> np.ndarray:
    return mu - 3 * sigma + 6 * sigma / segments * np.arange(1, segments)


def expected(module: LMA, x: np.ndarray) -> np.ndarray:
    """The formulas of the paper (by np.piecewise) and of the sum of hinges."""
    numbers, k = (module.start + module.change).detach().numpy(), module.segments
    borders = borders_of(float(module.mu), float(module.sigma), k)
    if isinstance(module, ContinuousLMA):
        hinges = np.diff(numbers[:k]) * np.maximum(x[..., None] - borders, 0)
        return numbers[k] + numbers[0] * x + hinges.sum(-1)
    ends = [-np.inf, *borders, np.inf]
    inside = [(low <= x) & (x < high) for low, high in zip(ends, ends[1:], strict=False)]
    lines = [lambda x, a=a, b=b: a * x + b for a, b in zip(numbers[:k], numbers[k:], strict=True)]
    return np.piecewise(x, inside, lines)


@BOTH
@pytest.mark.parametrize("segments", [2, 4, 8])
def test_the_function_is_its_formula_also_as_exporters_see_it(form: type[LMA], segments: int) -> None:
    module, x = learned(form, segments), 2 * torch.randn(3, 7, 40, dtype=torch.double)
    wanted = expected(module, x.numpy())
    np.testing.assert_allclose(module(x).detach().numpy(), wanted, atol=1e-12)
    np.testing.assert_allclose(module.spelled_out(x).numpy(), wanted, atol=1e-12)
    turned = x.transpose(1, 2)  # of another layout in memory
    np.testing.assert_allclose(module(turned).detach().numpy(), wanted.swapaxes(1, 2), atol=1e-12)


def test_the_continuous_form_has_no_jumps() -> None:
    module = learned(ContinuousLMA)
    borders = torch.from_numpy(borders_of(0.3, 0.7, 8))[None, None]
    torch.testing.assert_close(module(borders - 1e-9), module(borders + 1e-9), atol=1e-7, rtol=0)
    jumps = learned(LMA)(borders + 1e-9) - learned(LMA)(borders - 1e-9)
    assert jumps.abs().min() > 1e-3


@BOTH
@pytest.mark.parametrize("mu", [0.0, 0.5, -0.8, 1.7])
def test_the_start_is_relu_wherever_the_inputs_lie(form: type[LMA], mu: float) -> None:
    module, x = form(8), torch.randn(4, 50, 30) + mu
    torch.testing.assert_close(module.eval()(x), x.relu(), atol=1e-6, rtol=0)  # before any batch
    torch.testing.assert_close(module.train()(x), x.relu(), atol=2e-6, rtol=0)  # after the first
    assert int(module.batches) == 1
    torch.testing.assert_close(module.eval()(3 * x), (3 * x).relu(), atol=5e-6, rtol=0)


@pytest.mark.parametrize("segments, largest", [(4, 0.076), (8, 0.022), (16, 0.006)])
def test_the_start_of_a_conformer_is_silu_by_least_squares(segments: int, largest: float) -> None:
    x = np.linspace(-3, 3, 4800, endpoint=False) + 3 / 4800
    y = x * special.expit(x)
    lines = [np.polyval(np.polyfit(one, two, 1), one) for one, two in zip(
        x.reshape(segments, -1), y.reshape(segments, -1), strict=True)]
    at = torch.from_numpy(x)[None, None]
    found = LMA(segments, "silu").double().eval()(at).detach().numpy().ravel()
    np.testing.assert_allclose(found, np.concatenate(lines), atol=1e-4)
    assert abs(np.abs(found - y).max() - largest) < 5e-4
    basis = np.concatenate([[np.ones_like(x), x], np.maximum(x - borders_of(0, 1, segments)[:, None], 0)]).T
    best = basis @ np.linalg.lstsq(basis, y, rcond=None)[0]
    found = ContinuousLMA(segments, "silu").double().eval()(at).detach().numpy().ravel()
    np.testing.assert_allclose(found, best, atol=1e-4)


@BOTH
def test_the_start_is_fitted_to_the_first_batch(form: type[LMA]) -> None:
    """SiLU has a scale, so its lines are those of the inputs that there are."""
    module, x = form(8, "silu"), 0.3 * torch.randn(4, 50, 30) - 0.5
    module(x)
    at = torch.linspace(-1.2, 0.2, 100)[None, None]
    assert (module.eval()(at) - torch.nn.functional.silu(at)).abs().max() < 0.004
    assert (form(8, "silu").eval()(at) - torch.nn.functional.silu(at)).abs().max() > 0.01


def test_gradients_are_sums_over_the_segment() -> None:
    module, x = learned(LMA), 2 * torch.randn(2, 9, 11, dtype=torch.double)
    x.requires_grad_()
    module(x).sum().backward()
    segment = np.digitize(x.detach().numpy().ravel(), borders_of(0.3, 0.7, 8))
    slopes = [x.detach().numpy().ravel()[segment == j].sum() for j in range(8)]
    np.testing.assert_allclose(module.change.grad, [*slopes, *np.bincount(segment, minlength=8)], atol=1e-12)
    numbers = (module.start + module.change).detach().numpy()
    np.testing.assert_allclose(x.grad.numpy().ravel(), numbers[segment])  # type: ignore[union-attr]


@BOTH
def test_gradients_are_those_of_differences(form: type[LMA]) -> None:
    module, x = learned(form), (2 * torch.randn(2, 5, 6, dtype=torch.double)).requires_grad_()

    def of(x: Tensor, change: Tensor) -> Tensor:
        return torch.func.functional_call(module, {"change": change}, (x,))

    assert torch.autograd.gradcheck(of, (x, module.change))


@BOTH
def test_statistics_are_those_of_frames_inside_and_move_in_training_only(form: type[LMA]) -> None:
    x, inside = torch.randn(3, 20, 7) * 2 + 1, torch.ones(3, 20, 1)
    inside[1, 12:] = inside[2, 5:] = 0
    module, loud = form(), form()
    module(x, inside)
    heard = x.numpy()[inside[..., 0].numpy() > 0]
    np.testing.assert_allclose([float(module.mu), float(module.sigma)], [heard.mean(), heard.std()], rtol=1e-5)
    loud(torch.where(inside > 0, x, 1000.0), inside)
    torch.testing.assert_close(loud.state_dict(), module.state_dict())
    module(x + 1, inside)
    np.testing.assert_allclose([float(module.mu), float(module.sigma)], [heard.mean() + 0.01, heard.std()], rtol=1e-5)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module.eval()(5 * x, inside)
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)
    again = form()
    again.load_state_dict(before)
    again.train()(x, inside)  # a net that goes on does not begin anew
    assert int(again.batches) == 3
    torch.testing.assert_close(again.start, module.start, rtol=0, atol=0)


@BOTH
def test_half_precision_inputs_empty_and_broken_ones(form: type[LMA]) -> None:
    module, x = learned(form).float(), torch.randn(2, 8, 6)
    low = module(x.bfloat16())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), module(x.bfloat16().float()), atol=2e-2, rtol=1e-2)
    assert module(x[:, :0]).shape == (2, 0, 6)
    broken = module(torch.tensor([[[float("nan"), float("inf"), 1e30, -1e30]]]))
    assert broken[0, 0, 0].isnan() and broken[0, 0, 2:].isfinite().all()


def net(config: dict[str, Any], activation: str) -> Any:
    """A model whose activations learned something, in eval mode."""
    built = contract.build({**config, "activation": activation})
    built.train()(features(3, 60), torch.tensor([60, 41, 30]))
    for module in built.modules():
        if isinstance(module, LMA):
            torch.nn.init.normal_(module.change, std=0.05)
    return built.eval()


KINDS = pytest.mark.parametrize("activation", ["lma", "lma_continuous"])
NETS = pytest.mark.parametrize("config", [TDNN, CONFORMER], ids=lambda config: config["model"])


@NETS
@KINDS
def test_nets_keep_to_the_contract_and_have_so_many_numbers_more(config: dict[str, Any], activation: str) -> None:
    plain, other = models.build({**config, "activation": "relu"}), net(config, activation)
    places = sum(isinstance(module, LMA) for module in other.modules())
    assert places == {"tdnn": 4, "conformer": 6}[config["model"]]
    more = sum(p.numel() for p in other.parameters()) - sum(p.numel() for p in plain.parameters())
    assert more == places * {"lma": 16, "lma_continuous": 9}[activation]
    assert not any("activation" in name for name in plain.state_dict())
    contract.check_a_batch_gives_what_its_utterances_give_one_by_one(other)
    contract.check_an_utterance_of_no_frames_has_none_and_changes_no_other(other)


@KINDS
def test_a_tdnn_starts_as_one_with_relu(activation: str) -> None:
    torch.manual_seed(1)
    plain = models.build(TDNN)
    other = models.build({**TDNN, "activation": activation})
    other.load_state_dict(plain.state_dict(), strict=False)
    batch = features(3, 60), torch.tensor([60, 41, 30])
    torch.testing.assert_close(other.train()(*batch)[0], plain.train()(*batch)[0], atol=1e-5, rtol=1e-5)


@NETS
@KINDS
@pytest.mark.parametrize("way", [{"structure": "svd", "size": 0.6}, {"quantization": "int4"}])
def test_nets_are_folded_compressed_and_packed(config: dict[str, Any], activation: str, way: dict[str, Any],
                                               tmp_path: Path) -> None:
    small, _ = asrcompress.compress(net(config, activation), **way)
    asrcompress.save(tmp_path / "m.packed", small)
    batch = features(2, 41), torch.tensor([41, 30])
    with torch.inference_mode():
        torch.testing.assert_close(asrcompress.load(tmp_path / "m.packed")(*batch)[0], small.eval()(*batch)[0],
                                   atol=1e-4, rtol=1e-4)


@BOTH
def test_weight_decay_leaves_it_alone(form: type[LMA]) -> None:
    module = AcousticModule.__new__(AcousticModule)
    torch.nn.Module.__init__(module)
    module.model = net(TDNN, "lma" if form is LMA else "lma_continuous")
    decayed, free = module.parameter_groups()
    changes = {id(one.change) for one in module.model.modules() if isinstance(one, LMA)}
    assert changes <= {id(one) for one in free} and not changes & {id(one) for one in decayed}
