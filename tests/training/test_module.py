import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Trainer
from torch import Tensor, nn

from asrcompress.compression import Plan, compress
from asrcompress.models import AcousticModel, build
from asrcompress.training import criteria
from asrcompress.training.criteria.distillation import Distillation
from asrcompress.training.module import AcousticModule, learning_rate
from asrcompress.training.options import OptimizerOptions, TrainingOptions

OPTIONS = TrainingOptions(optimizer=OptimizerOptions(1e-3, 0.1, (0.9, 0.98)), warmup=0.1, gradient_clip=0.5,
                          semi_orthogonal_every=2, ctc_epochs=0)
VOCAB = 6
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning")


def model() -> AcousticModel:
    torch.manual_seed(0)
    return build(
        {
            "model": "tdnn",
            "features": 80,
            "vocab": VOCAB,
            "dropout": 0.1,
            "stack": [
                {"dim": 8, "taps": 5, "stride": 2},
                {"dim": 16, "taps": 3, "stride": 2},
                {"dim": 16, "taps": 3, "bottleneck": 4},
            ],
        }
    )


def batch(seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(3, 60, 80, generator=generator),
        "x_lens": torch.tensor([60, 52, 40]),
        "ids": ["a", "b", "c"],
        "targets": torch.randint(1, VOCAB, (3, 5), generator=generator),
        "target_lens": torch.tensor([5, 4, 2]),
    }


def module(criterion: str = "ctc", total_seconds: float = 100.0, **changed: Any) -> AcousticModule:
    options = {"targets": [[1, 2, 3], [4, 5, 1]]} if criterion == "lfmmi" else {}
    built = criteria.build(criterion, VOCAB, **options)
    return AcousticModule(model(), built, replace(OPTIONS, **changed), 0, total_seconds)


class Recorder(AcousticModule):
    """Notes what the optimizer saw and left behind."""

    draws = 0

    def on_train_start(self) -> None:
        self.norms, self.rates, self.orthogonal, self.losses = [], [], [], []

    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        torch.rand(self.draws)
        loss = super().training_step(batch, index)
        self.losses.append(loss.item())
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        gradients = [p.grad.flatten() for p in self.model.parameters() if p.grad is not None]
        self.norms.append(float(torch.cat(gradients).norm()))
        self.rates.append(self.optimizers().param_groups[0]["lr"])
        self.orthogonal.append(deviation(next(self.model.semi_orthogonal()).weight))


def deviation(weight: Tensor) -> float:
    values = np.linalg.svd(weight.detach().flatten(1).double().numpy(), compute_uv=False)
    return float(values.max() / values.min())


def train(recorder: AcousticModule, batches: int) -> None:
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(recorder, torch.utils.data.DataLoader([batch(i) for i in range(batches)], batch_size=None))


def recorder(seed: int = 0, **changed: Any) -> Recorder:
    return Recorder(model(), criteria.build("ctc", VOCAB), replace(OPTIONS, **changed), seed, 10 * 1.52)


def test_learning_rate_rises_linearly_and_falls_as_a_cosine() -> None:
    peak, warmup = 2e-3, 0.1
    at = [learning_rate(progress, peak, warmup) for progress in np.linspace(0, 1, 1001)]
    assert (
        at[0] == pytest.approx(0.01 * peak)
        and at[100] == pytest.approx(peak)
        and at[1000] == pytest.approx(0.01 * peak)
    )
    np.testing.assert_allclose(at[1:101], peak * np.arange(1, 101) / 100, atol=1e-12)
    assert np.argmax(at) == 100 and (np.diff(at[100:]) < 0).all()
    np.testing.assert_allclose(
        np.add(at[100:551], at[550:1001][::-1]), 1.01 * peak, atol=1e-9
    )  # a cosine is odd about its middle
    assert learning_rate(1.5, peak, warmup) == at[1000] and learning_rate(0.0, peak, 0.0) == peak


def test_rate_follows_the_seconds_of_audio() -> None:
    done = recorder()
    train(done, 10)
    assert done.seconds == pytest.approx(10 * 1.52)
    np.testing.assert_allclose(done.rates, [learning_rate(i / 10, 1e-3, 0.1) for i in range(10)])


def test_gradients_are_clipped() -> None:
    free, clipped = recorder(gradient_clip=1e9), recorder(gradient_clip=1e-3)
    train(free, 3)
    train(clipped, 3)
    assert min(free.norms) > 0.1
    np.testing.assert_allclose(clipped.norms, 1e-3, rtol=1e-3)


def test_factors_are_kept_semi_orthogonal_every_second_step() -> None:
    free, kept = recorder(semi_orthogonal_every=0), recorder()
    train(free, 12)
    train(kept, 12)
    assert kept.orthogonal[0] == free.orthogonal[0] != free.orthogonal[1] > kept.orthogonal[1]
    assert kept.orthogonal[-1] < 1.01 < free.orthogonal[-1]


def test_weight_decay_is_for_matrices_whose_scale_is_not_free() -> None:
    mine = module()
    optimizer = mine.configure_optimizers()
    decayed, free = ({id(p) for p in group["params"]} for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    for name, parameter in mine.model.named_parameters():
        assert (id(parameter) in decayed) == (parameter.dim() > 1 and ".linear." not in name), name
        assert (id(parameter) in free) != (id(parameter) in decayed)


def test_factors_of_semi_orthogonal_structures_are_constrained_and_do_not_decay() -> None:
    small, _ = compress(model(), Plan("semi_orthogonal", 0.7, budget="uniform", options={"rank_multiple": 1}))
    mine = AcousticModule(small, criteria.build("ctc", VOCAB), OPTIONS, 0, 100.0)
    names = {name for name, p in mine.model.named_parameters() if any(p is factor for factor in mine.constrained())}
    assert names and all(name.endswith("structure.right") for name in names)
    assert {id(p) for p in mine.constrained()} <= {id(p) for p in mine.parameter_groups()[1]}


def test_a_step_depends_on_its_place_only() -> None:
    """Dropout is drawn from (seed, epoch, batch), whatever was drawn before."""

    def losses(draws: int, seed: int = 0) -> list[float]:
        frozen = recorder(seed, optimizer=OptimizerOptions(0.0, 0.1))
        frozen.draws = draws
        train(frozen, 3)
        return frozen.losses

    assert losses(0) == losses(5) != losses(0, seed=1)


@pytest.mark.parametrize("criterion", ["ctc", "lfmmi"])
def test_the_criterion_is_computed_in_float32_under_autocast(criterion: str) -> None:
    mine, data = module(criterion).eval(), batch()
    seen: list[Tensor] = []
    mine.criterion.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        log_probs, lens, found = mine._loss(data)
    assert seen[0].dtype == torch.float32
    expected = mine.criterion(log_probs, lens, data["targets"], data["target_lens"])
    torch.testing.assert_close(found["loss"], expected["loss"], atol=1e-6, rtol=1e-6)


def test_token_error_rate_counts_the_frames_inside_only(monkeypatch: pytest.MonkeyPatch) -> None:
    best = torch.tensor([[1, 1, 0, 1, 2, 2], [3, 0, 3, 3, 4, 5], [0, 0, 0, 1, 1, 1]])
    lens = torch.tensor([6, 4, 3])  # collapsed: 1 1 2; 3 3; nothing
    log_probs = nn.functional.one_hot(best, VOCAB).float().mul(9).log_softmax(-1)
    mine, logged = module(), {}
    mine.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    mine.model.forward = lambda x, x_lens: (log_probs, lens)  # type: ignore[method-assign]
    monkeypatch.setattr(mine, "log", lambda name, value, **_: logged.update({name: float(value)}))
    targets = torch.tensor([[1, 2, 1], [3, 3, 0], [5, 0, 0]])
    mine.validation_step({"x": None, "x_lens": None, "targets": targets, "target_lens": torch.tensor([3, 2, 1])}, 0)
    assert logged["dev_ter"] == pytest.approx(100 * (2 + 0 + 1) / 6) and math.isfinite(logged["dev_loss"])


def test_ctc_comes_first_then_the_criterion(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, data = module("lfmmi", ctc_epochs=2).eval(), batch()
    keys = []
    for epoch in range(4):
        monkeypatch.setattr(AcousticModule, "current_epoch", epoch)
        keys.append("mmi" in mine._loss(data)[2])
    assert keys == [False, False, True, True]


def test_an_utterance_of_two_views_is_heard_once() -> None:
    done = Recorder(model(), criteria.build("consistency", VOCAB), OPTIONS, 0, 10 * 1.52)
    views = {name: 2 * value if name == "ids" else torch.cat((value, value)) for name, value in batch().items()}
    trainer = Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(done, torch.utils.data.DataLoader([views, views], batch_size=None))
    assert done.seconds == pytest.approx(2 * 1.52) and done.criterion.progress == pytest.approx(0.1)


def test_distillation_hears_what_the_student_hears() -> None:
    teacher = model().eval()
    with torch.no_grad():
        teacher.get_parameter(next(name for name, _ in teacher.named_parameters())).mul_(2.0)
    mine = AcousticModule(model().eval(), Distillation({"teacher": teacher}, VOCAB), OPTIONS, 0, 100.0)
    data = batch()
    log_probs, lens, result = mine._loss(data)
    expected = mine.criterion(log_probs, lens, *(data[name] for name in mine.criterion.inputs))
    assert result["loss"] > 0
    torch.testing.assert_close(result["loss"], expected["loss"])
    assert not any("teacher" in name or "hidden" in name for name in mine.state_dict())


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("mode", [True, False])
def test_ctc_of_the_middle_counts_with_its_weight(mode: bool, blocks: int) -> None:
    torch.manual_seed(0)
    conformer = build({"model": "conformer", "features": 80, "vocab": VOCAB, "dim": 8, "heads": 2, "hidden": 8,
                       "blocks": blocks, "kernel": 3, "front": 8, "dropout": 0.0, "stochastic_depth": 0.0}).train(mode)
    built = AcousticModule(conformer, criteria.build("ctc", VOCAB), replace(OPTIONS, intermediate_ctc=0.3), 0, 1.0)
    data = batch()
    log_probs, lens, result = built._loss(data)

    def ctc(scores: Tensor) -> Tensor:
        total = nn.functional.ctc_loss(scores.transpose(0, 1), data["targets"], lens, data["target_lens"],
                                       reduction="sum")
        return total / lens.sum()

    torch.testing.assert_close(result["loss"], 0.7 * ctc(log_probs) + 0.3 * ctc(conformer.intermediate))
    with torch.no_grad():  # a validation
        log_probs, lens, result = built._loss(data)
    torch.testing.assert_close(result["loss"], ctc(log_probs))
