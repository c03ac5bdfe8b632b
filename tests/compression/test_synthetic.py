"""Features made from a model: the divergence against torch's own, and features that a model finds familiar."""

import pytest
import torch
from torch import nn

from asrcompress import models
from asrcompress.compression import activations, fold, synthetic
from asrcompress.errors import UserError

TDNN = {"model": "tdnn", "features": 8, "vocab": 12, "dropout": 0.1,
        "stack": [{"dim": 32, "taps": 3, "stride": 2}, {"dim": 32, "taps": 3, "repeat": 2}]}


def speech(count: int = 8, seed: int = 0) -> torch.Tensor:
    """Something with statistics of its own: correlated channels, a scale for each."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(8, 8, generator=torch.Generator().manual_seed(99)) * torch.linspace(1, 6, 8)
    return synthetic.smooth_noise((count, synthetic.FRAMES, 8), generator, 0.7) @ mix


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """Its BatchNorms have seen `speech`."""
    torch.manual_seed(0)
    model = models.build(TDNN).train()
    with torch.no_grad():
        model.output.weight *= 10  # so that it can be confident
    for seed in range(30):
        model(speech(seed=seed), torch.full((8,), synthetic.FRAMES))
    return model.eval()


def far(model: nn.Module, x: torch.Tensor) -> float:
    with torch.no_grad(), synthetic.Statistics(model) as seen:
        model(x, torch.full((len(x),), x.shape[1]))
    return float(seen.divergence())


def test_divergence_is_that_of_torch() -> None:
    mean, mean_to = torch.randn(2, 50)
    var, var_to = torch.rand(2, 50) + 0.1
    normal = torch.distributions.Normal
    wanted = torch.distributions.kl_divergence(normal(mean, var.sqrt()), normal(mean_to, var_to.sqrt())).mean()
    torch.testing.assert_close(synthetic.divergence(mean, var, mean_to, var_to), wanted)
    assert synthetic.divergence(mean, var, mean, var) == pytest.approx(0, abs=1e-6)


def test_statistics_are_those_of_the_batchnorm_inputs() -> None:
    norm = nn.BatchNorm1d(5, momentum=1.0).train()
    x = 3 * torch.randn(4, 5, 50) + 1
    norm(x)
    norm.running_var *= (4 * 50 - 1) / (4 * 50)  # torch keeps the unbiased variance
    with synthetic.Statistics(norm.eval()) as seen:
        norm(x)
    assert float(seen.divergence()) == pytest.approx(0, abs=1e-5)
    assert not norm._forward_pre_hooks


def test_features_of_the_statistics_are_nearer_to_speech_than_noise_is(model: nn.Module) -> None:
    (noise, lens), *more = synthetic.gaussian(model, batches=2)
    assert noise.shape == (8, synthetic.FRAMES, 8) and not torch.equal(noise, more[0][0])
    assert float(noise.mean()) == pytest.approx(0, abs=0.05) and float(noise.std()) == pytest.approx(1, abs=0.05)
    ((x, _),) = synthetic.batchnorm(model, batches=1, steps=40, labels=0.1)
    assert far(model, x) < 0.3 * far(model, noise)
    wanted, *others = (activations.observe(model, [(one, lens)]) for one in (speech(seed=99), x, noise))

    def off(grids: dict[str, activations.Grid]) -> float:
        return sum(abs(torch.tensor(grids[path].scale / wanted[path].scale).log().item()) for path in wanted)

    assert off(others[0]) < off(others[1])


def test_labels_follow_the_prior(model: nn.Module) -> None:
    prior = torch.zeros(12)
    prior[3] = 1.0
    with torch.no_grad():
        best = {}
        for labels in (0.0, 3.0):
            ((x, lens),) = synthetic.batchnorm(model, batches=1, size=4, steps=40, labels=labels, prior=prior)
            best[labels] = model(x, lens)[0].exp()
    assert best[3.0][..., 3].mean() > 1.2 * best[0.0][..., 3].mean()


def test_the_model_is_left_as_it_was_and_the_seed_decides(model: nn.Module) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.layers[0].train()
    first, again, other = (synthetic.batchnorm(model, 1, 2, steps=2, seed=seed)[0][0] for seed in (1, 1, 2))
    assert model.layers[0].training and not model.training
    model.eval()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_minutes_are_batches_and_mistakes_are_sentences(model: nn.Module) -> None:
    batches = synthetic.examples(model, "gaussian", 1.0, seed=0)
    assert 6000 <= sum(int(lens.sum()) for _, lens in batches) < 6000 + 8 * synthetic.FRAMES
    with pytest.raises(UserError, match="gaussian or batchnorm"):
        synthetic.examples(model, "dreams", 1, seed=0)
    with pytest.raises(UserError, match="are none"):
        synthetic.examples(model, "gaussian", 0, seed=0)
    with pytest.raises(UserError, match="give the model file"):
        synthetic.examples(fold(model), "batchnorm", 1, seed=0)
    with pytest.raises(UserError, match="how many `features`"):
        synthetic.gaussian(nn.Linear(3, 3))
