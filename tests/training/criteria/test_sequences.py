"""The criteria over whole sequences as a training calls them."""

from typing import Any

import pytest
import torch
from torch import Tensor

from asrcompress import precision
from asrcompress.config import compose
from asrcompress.errors import UserError
from asrcompress.training import criteria
from asrcompress.training.criteria import _phone_lm as phone_lm
from asrcompress.training.criteria import lfmmi
from asrcompress.training.criteria._teaching import Teaching
from tests.training.criteria.test_alignment_kl import divergence as alignment_divergence
from tests.training.criteria.test_path_kl import divergence as path_divergence
from tests.training.criteria.test_teaching import TARGETS, VOCAB, batch, call, tdnn

NAMES = ["path_kl", "label_kl", "alignment_kl"]
LM = phone_lm.estimate(TARGETS, VOCAB)


def built(name: str, *seeds: int, **options: Any) -> Teaching:
    cls = criteria.family(name)
    teachers = {f"teacher{seed}": tdnn(seed) for seed in seeds}
    return cls(teachers, VOCAB, cls.Options(**options), iter(TARGETS))  # type: ignore[call-arg,return-value]


def heard(data: dict[str, Any], *seeds: int) -> list[Tensor]:
    with torch.no_grad(), precision.autocast("cpu"):
        return [tdnn(seed)(data["x"], data["x_lens"])[0] for seed in seeds]


def test_path_kl_is_the_mean_per_frame_with_the_scales() -> None:
    data, student = batch(), tdnn(1)
    log_probs, lengths = student(data["x"], data["x_lens"])
    result = call(built("path_kl", 0, 2, teacher_scale=1.5, student_scale=0.8), student, data)
    wanted = path_divergence([1.5 * teacher for teacher in heard(data, 0, 2)], 0.8 * log_probs, lengths, LM)
    torch.testing.assert_close(result["loss"], wanted.sum() / lengths.sum(), rtol=1e-4, atol=1e-5)
    assert int(result["frames"]) == int(lengths.sum()) and result["loss"] > 0
    assert abs(call(built("path_kl", 1), student, data)["loss"].item()) < 1e-5


@pytest.mark.parametrize("name", ["path_kl", "label_kl"])
@pytest.mark.parametrize("scale", [1.0, 0.8])
def test_lfmmi_beside_it_shares_the_denominator_where_the_scales_agree(name: str, scale: float,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    data, student = batch(), tdnn(1)
    criterion = built(name, 0, hard="lfmmi", weight=0.6, student_scale=scale).eval()
    mixed = call(criterion, student, data)
    (gradient,) = torch.autograd.grad(mixed["loss"], student.output.weight)
    alone = call(built(name, 0, hard="none", weight=1.0, student_scale=scale).eval(), student, data)["loss"]
    hard = lfmmi.LFMMI(LM)(*student(data["x"], data["x_lens"]), data["targets"], data["target_lens"])["loss"]
    torch.testing.assert_close(mixed["loss"], 0.6 * alone + 0.4 * hard)
    torch.testing.assert_close(gradient, torch.autograd.grad(0.6 * alone + 0.4 * hard, student.output.weight)[0])
    calls: list[int] = []
    denominator = lfmmi.denominator
    monkeypatch.setattr(lfmmi, "denominator", lambda *given: calls.append(1) or denominator(*given))
    call(criterion, student, data)
    assert len(calls) == (1 if scale == 1.0 else 2)


def test_label_kl_draws_anew_in_training_and_the_same_in_validation() -> None:
    data, student, criterion = batch(), tdnn(1), built("label_kl", 0, 2, hard="none", weight=1.0)
    torch.manual_seed(0)
    first, second = (call(criterion, student, data)["loss"].item() for _ in range(2))
    torch.manual_seed(0)
    assert call(criterion, student, data)["loss"].item() == first != second
    fixed = [call(criterion.eval(), student, data)["loss"].item() for _ in range(2)]
    assert fixed[0] == fixed[1]


def test_label_kl_draws_from_each_teacher() -> None:
    data, student = batch(), tdnn(1)
    options = {"hard": "none", "weight": 1.0, "samples": 2000}
    one, two, both = (call(built("label_kl", *seeds, **options), student, data)["loss"].item()
                      for seeds in ((0,), (2,), (0, 2)))
    assert both == pytest.approx((one + two) / 2, rel=0.02)


def test_alignment_kl_leaves_the_hard_criterion_alone_after_its_share_of_the_training() -> None:
    data, student, criterion = batch(), tdnn(1), built("alignment_kl", 0, weight=0.3, until=0.5)
    log_probs, lengths = student(data["x"], data["x_lens"])
    rest = lengths, data["targets"], data["target_lens"]
    hard = criteria.build("ctc", VOCAB)(log_probs, *rest)["loss"]
    soft = alignment_divergence(heard(data, 0), log_probs, *rest).sum() / lengths.sum()
    torch.testing.assert_close(call(criterion, student, data)["loss"], 0.3 * soft + 0.7 * hard, rtol=1e-4, atol=1e-5)
    criterion.progress = 0.5
    torch.testing.assert_close(call(criterion, student, data)["loss"], hard)


@pytest.mark.parametrize("name", NAMES)
def test_a_student_that_follows_its_teacher_gets_nearer(name: str) -> None:
    data, student, criterion = batch(), tdnn(1), built(name, 0, until=1.0) if name == "alignment_kl" else built(name, 0)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        result = call(criterion, student, data)
        result["loss"].backward()
        optimizer.step()
        losses.append(result["loss"].item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_options_are_checked(name: str) -> None:
    assert compose("train", [f"criterion={name}"])["criterion"]["weight"] == criteria.family(name).Options().weight
    with pytest.raises(UserError, match=f"{name} needs a teacher"):
        criteria.build(name, VOCAB, TARGETS)
    with pytest.raises(UserError, match="teacher_scale 0"):
        criteria.build(name, VOCAB, TARGETS, teacher_scale=0.0)
    with pytest.raises(UserError, match="until is 2" if name == "alignment_kl" else "no option 'until'"):
        criteria.build(name, VOCAB, TARGETS, until=2.0)


def test_what_they_cannot_do_they_say() -> None:
    with pytest.raises(UserError, match="give hard=ctc or hard=lfmmi"):
        criteria.build("alignment_kl", VOCAB, TARGETS, hard="none")
    with pytest.raises(UserError, match="leave hidden away"):
        criteria.build("alignment_kl", VOCAB, TARGETS, hidden=(("a", "b"),))
    with pytest.raises(UserError, match="at least one training transcript"):
        criteria.family("path_kl")({}, VOCAB)  # type: ignore[call-arg]
