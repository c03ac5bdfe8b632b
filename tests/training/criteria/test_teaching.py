"""What criteria with a teacher share, seen through distillation."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asrcompress import models, precision
from asrcompress.compression import save_model
from asrcompress.config import compose
from asrcompress.errors import UserError
from asrcompress.training import criteria
from asrcompress.training.criteria._teaching import Teaching, TeachingOptions
from asrcompress.training.criteria.distillation import Distillation, DistillationOptions

VOCAB = 6
TARGETS = [[1, 2, 3], [4, 5, 1]]


def tdnn(seed: int, vocab: int = VOCAB, strides: tuple[int, int] = (2, 2)) -> models.AcousticModel:
    torch.manual_seed(seed)
    rows = [{"dim": 8, "taps": taps, "stride": stride} for taps, stride in zip((5, 3), strides, strict=True)]
    return models.build({"model": "tdnn", "features": 80, "vocab": vocab, "dropout": 0.1, "stack": rows}).eval()


def batch(seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {"x": torch.randn(3, 60, 80, generator=generator), "clean": torch.randn(3, 60, 80, generator=generator),
            "x_lens": torch.tensor([60, 52, 40]), "ids": ["a", "b", "b_sp0.9"],
            "targets": torch.tensor([[1, 2, 2, 5], [3, 1, 4, 0], [2, 0, 0, 0]]), "target_lens": torch.tensor([4, 3, 1])}


def call(criterion: Teaching, student: nn.Module, data: dict[str, Any]) -> dict[str, Tensor]:
    return criterion(*student(data["x"], data["x_lens"]), *(data[name] for name in criterion.inputs))


def teaching(teachers: dict[str, nn.Module], **options: Any) -> Teaching:
    return Distillation(teachers, VOCAB, DistillationOptions(**options), TARGETS)


class Counted(nn.Module):
    """What a teacher was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Tensor] = []

    def forward(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.heard.extend(inputs[0])


def test_the_teacher_is_frozen_deterministic_and_no_part_of_the_state() -> None:
    teacher, data = tdnn(0).train(), batch()
    criterion = teaching({"t": teacher}).train()
    assert not criterion.state_dict() and not list(criterion.parameters()) and not teacher.training
    first, second = (call(criterion, tdnn(1), data)["loss"] for _ in range(2))
    assert first.item() == second.item() > 0
    first.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_clean_posteriors_are_computed_once_and_kept_as_float16() -> None:
    teacher, student, data = tdnn(0), tdnn(1), batch()
    counted = Counted()
    teacher.register_forward_pre_hook(counted)
    criterion = teaching({"t": teacher}, teacher_input="clean")
    result = call(criterion, student, data)
    again = call(criterion, student, {**data, "clean": torch.full_like(data["clean"], float("nan"))})
    assert len(counted.heard) == 3 and again["loss"].item() == result["loss"].item()
    with precision.autocast("cpu"):
        wanted, lengths = teacher(data["clean"], data["x_lens"])
    for name, row, length in zip(data["ids"], wanted, lengths, strict=True):
        assert criterion.cache[name][0].dtype == torch.float16
        torch.testing.assert_close(criterion.cache[name][0], row[:length].half(), rtol=0, atol=0)
    late = {key: value[1:] for key, value in data.items()} | {"ids": ["b", "new"]}  # in another place, beside a new one
    counted.heard.clear()
    assert torch.isfinite(call(criterion, student, late)["loss"])
    assert len(counted.heard) == 1 and torch.equal(counted.heard[0], data["clean"][2])


@pytest.mark.parametrize("hard", ["ctc", "lfmmi"])
def test_the_hard_criterion_gets_the_rest_of_the_weight(hard: str) -> None:
    teacher, student, data = tdnn(0), tdnn(1), batch()
    soft = call(teaching({"t": teacher}), student, data)["loss"]
    alone = criteria.build(hard, VOCAB, TARGETS)
    wanted = alone(*student(data["x"], data["x_lens"]), data["targets"], data["target_lens"])["loss"]
    mixed = call(teaching({"t": teacher}, hard=hard, weight=0.7), student, data)
    torch.testing.assert_close(mixed["loss"], 0.7 * soft + 0.3 * wanted)
    torch.testing.assert_close((mixed["soft"], mixed["hard"]), (soft, wanted))


def test_an_utterance_that_cannot_be_aligned_still_has_a_teacher() -> None:
    teacher, student, data = tdnn(0), tdnn(1), batch()
    data |= {"targets": torch.ones(3, 40).long(), "target_lens": torch.tensor([40, 40, 1])}
    student.requires_grad_()
    result = call(teaching({"t": teacher}, hard="ctc", weight=0.5), student, data)
    result["loss"].backward()
    assert int(result["unaligned"]) == 2 and int(result["frames"]) == 15 + 13 + 10
    assert torch.isfinite(result["loss"]) and all(p.grad.isfinite().all() for p in student.parameters())  # type: ignore[union-attr]
    torch.testing.assert_close(result["soft"], call(teaching({"t": teacher}), student, data)["loss"].detach())


@pytest.mark.parametrize("given", ["one", "one,two"])
def test_teachers_come_from_files(tmp_path: Any, given: str) -> None:
    for seed, name in enumerate(("one", "two")):
        save_model(tmp_path / name, tdnn(seed))
    files = [str(tmp_path / name) for name in given.split(",")]
    word = files[0] if len(files) == 1 else f"[{','.join(files)}]"
    config = compose("train", ["criterion=distillation", f"criterion.teacher={word}"])["criterion"]
    built = criteria.build(**config, vocab=VOCAB)
    assert isinstance(built, Teaching) and list(built.teachers) == files


def test_errors(tmp_path: Any) -> None:
    with pytest.raises(UserError, match="distillation needs a teacher"):
        criteria.build("distillation", VOCAB)
    with pytest.raises(UserError, match="nowhere"):
        criteria.build("distillation", VOCAB, teacher="nowhere")
    with pytest.raises(UserError, match="the teacher big has 9 tokens and the lang folder 6"):
        teaching({"big": tdnn(0, vocab=9)})
    with pytest.raises(UserError, match="the teacher odd is no acoustic model"):
        teaching({"odd": nn.Linear(2, 2)})
    with pytest.raises(UserError, match=r"the teacher coarse gives \[8, 7, 5\] frames and the student \[15, 13, 10\]"):
        call(teaching({"coarse": tdnn(0, strides=(4, 2))}), tdnn(1), batch())
    for wrong in ({"weight": 0.5}, {"hard": "ctc"}, {"hard": "ctc", "weight": 0.0}):
        with pytest.raises(UserError, match="criterion: weight is"):
            replace(TeachingOptions(), **wrong)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="the name of a teacher is empty"):
        TeachingOptions(teacher=("a", ""))
