"""A compressed model gets nearer to its teacher, and what was fixed stays so."""

from pathlib import Path

import pytest
import torch

from asrcompress import models
from asrcompress.compression import Plan, activations, compress, distil, packed, quantization, synthetic
from asrcompress.errors import UserError
from tests.compression.test_synthetic import TDNN


def test_divergence_is_the_mean_over_frames_inside() -> None:
    teacher, student = torch.randn(2, 2, 5, 7).log_softmax(-1)
    lens = torch.tensor([5, 3])
    kl = torch.distributions.kl_divergence(*(torch.distributions.Categorical(logits=one) for one in (teacher, student)))
    torch.testing.assert_close(distil.divergence(teacher, student, lens), (kl[0].sum() + kl[1, :3].sum()) / 8)


@pytest.mark.parametrize("structure", ["dense", "svd"])
def test_int4_with_int8_activations_gets_nearer_to_the_teacher(structure: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = models.build(TDNN).eval()
    with torch.no_grad():
        teacher.output.weight *= 20  # so that it has something to say
    batches = synthetic.gaussian(teacher, batches=2, size=2)
    size = {"size": None} if structure == "dense" else {"size": 0.7}
    student, _ = compress(teacher, Plan(structure=structure, quantization="int4", **size))
    student = activations.apply(student, activations.observe(student, batches))
    before = {name: value.clone() for name, value in student.state_dict().items()}
    trained = distil.distil(student, teacher, batches, steps=60, lr=1e-3)
    packed.save(tmp_path / "m.packed", trained)
    (x, x_lens), lens = synthetic.gaussian(teacher, batches=1, size=2, seed=9)[0], torch.tensor([200, 200])
    with torch.no_grad():
        wanted = teacher(x, x_lens)[0]
        first, last = (float(distil.divergence(wanted, one(x, x_lens)[0], lens))
                       for one in (student, packed.load(tmp_path / "m.packed")))
    assert last < first
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    same = {name: torch.equal(value, before[name]) for name, value in trained.state_dict().items()}
    assert all(equal for name, equal in same.items() if "running" in name) and not all(same.values())
    assert activations.entries(trained) == activations.entries(student)


def test_schedules_of_values_are_followed() -> None:
    teacher = models.build(TDNN).eval()
    student = quantization.apply(teacher, "pruned", density=0.25, schedule="cubic", until=0.5)
    trained = distil.distil(student, teacher, synthetic.gaussian(teacher, 1, 1), steps=4)
    weights = torch.cat([w.flatten() for one in quantization.attached(trained).values() for w in [one()]])
    assert float((weights != 0).double().mean()) == pytest.approx(0.25, abs=0.02)


def test_mistakes_are_sentences() -> None:
    model = models.build(TDNN)
    with pytest.raises(UserError, match="there is none"):
        distil.distil(model, model, [], 3)
    with pytest.raises(UserError, match="every parameter of the student is frozen"):
        distil.distil(models.build(TDNN).requires_grad_(False), model, synthetic.gaussian(model, 1, 1), 3)
    batches = [(torch.full((1, 40, 8), float("nan")), torch.tensor([40]))]
    with pytest.raises(UserError, match="lower learning rate"):
        distil.distil(model, model, batches, 3)
