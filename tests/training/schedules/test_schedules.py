import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asrcompress import compression, models
from asrcompress.cli import main
from asrcompress.compression import Plan, modules, record, save_model, structures
from asrcompress.config import compose
from asrcompress.errors import UserError
from asrcompress.options import make
from asrcompress.training import criteria
from asrcompress.training.module import AcousticModule
from asrcompress.training.options import AverageOptions, TrainingOptions
from asrcompress.training.schedules import Schedule, build, family
from tests import prepared
from tests.training.test_module import OPTIONS as MODULE_OPTIONS
from tests.training.test_module import batch
from tests.training.test_train import OPTIONS, train, weights

TRAINING = TrainingOptions(epochs=8, average=AverageOptions("last", 3))
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning")
STACK = [{"dim": 16, "taps": 5, "stride": 2}, {"dim": 24, "taps": 3, "stride": 2, "repeat": 2}]
SMALL = ["training.epochs=4", "training.average={how: last, count: 1}", "size=0.4", "structure=svd",
         "structure.rank_multiple=1"]


def model(**more: Any) -> models.AcousticModel:
    torch.manual_seed(0)
    return models.build({"model": "tdnn", "features": 80, "vocab": 6, "stack": STACK} | more)


def plan(structure: str = "svd", size: float | None = 0.3, **more: Any) -> Plan:
    return Plan(structure, size, **({"options": {"rank_multiple": 1}} | more))


def during(name: str, of: Plan | None = None, training: TrainingOptions = TRAINING, **changed: Any) -> Schedule:
    cls = family(name)
    return cls(of or plan(), make(cls.Options, changed, f"schedule {name}"), training)


def numbers(net: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_sizes_fall_geometrically_to_the_target() -> None:
    of = plan(size=0.25)
    whens, sizes = zip(*during("truncate", of, start=0.2, end=0.8, steps=4).cuts, strict=True)
    np.testing.assert_allclose(whens, [0.2, 0.4, 0.6, 0.8])
    np.testing.assert_allclose(sizes, [2**-0.5, 0.5, 2**-1.5, 0.25])
    assert during("truncate", of, start=0.2, end=0.8, steps=1).cuts == [(0.2, 0.25)]
    assert during("trace_norm", of, end=0.7).cuts == [(0.7, 0.25)]


@pytest.mark.parametrize("structure", ["svd", "semi_orthogonal"])
def test_from_scratch_every_layer_is_a_random_structure_of_its_own(structure: str) -> None:
    net, dense = model(), numbers(model())
    during("scratch", plan(structure)).begin(net)
    found = modules.structured(net)
    assert set(found) == {"layers.0.conv", "layers.1.conv", "layers.2.conv"}, "the output stays dense"
    assert {layer.name for layer in found.values()} == {structure} and record.layers(net).keys() == found.keys()
    assert 0.25 < numbers(net) / dense <= 0.3
    same = model(stack=[STACK[0], STACK[1] | {"dim": 16, "repeat": 3}])
    during("scratch", plan(structure)).begin(same)
    first, second = (same.get_submodule(f"layers.{i}.conv").structure for i in (2, 3))
    assert first.shape == second.shape and not torch.equal(first.dense(), second.dense())


def test_trace_norm_starts_from_the_weights_themselves() -> None:
    net, dense = model(), model()
    during("trace_norm").begin(net)
    for path, layer in modules.structured(net).items():
        torch.testing.assert_close(layer.dense(), dense.get_submodule(path).weight, atol=1e-5, rtol=1e-4)
        # Balanced factors: half the sum of their squares is the nuclear norm of their product.
        nuclear = np.linalg.svd(layer.dense().detach().flatten(1).numpy(), compute_uv=False).sum()
        half = sum(float(factor.detach().square().sum()) for factor in layer.parameters()) / 2
        assert half == pytest.approx(nuclear, rel=1e-4)


def test_the_penalty_is_adamws_decay_of_the_factors() -> None:
    def trained(penalty: float, decay: float) -> AcousticModule:
        net = model()
        callback = during("trace_norm", penalty=penalty)
        callback.begin(net)
        module = AcousticModule(net, criteria.build("ctc", 6), MODULE_OPTIONS, 0, 100.0)
        factors = [p for layer in modules.structured(net).values() for p in layer.parameters()]
        optimizer = torch.optim.AdamW(factors, lr=0.01, weight_decay=decay)
        loss = criteria.build("ctc", 6)(*net(batch()["x"], batch()["x_lens"]), batch()["targets"],
                                        batch()["target_lens"])["loss"]
        loss.backward()
        callback.on_before_optimizer_step(None, module, optimizer)  # type: ignore[arg-type]
        optimizer.step()
        return module

    for one, two in zip(trained(5.0, 0.0).parameters(), trained(0.0, 5.0).parameters(), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("budget", ["uniform", "global_greedy"])
def test_a_cut_keeps_the_nearest_weights_and_reaches_the_size(budget: str) -> None:
    net, dense = model(), numbers(model())
    callback = during("truncate", plan(budget=budget))
    callback.begin(net)
    assert not modules.structured(net)
    module = AcousticModule(net, criteria.build("ctc", 6), MODULE_OPTIONS, 0, 100.0)
    optimizer = module.configure_optimizers()
    for size in (0.6, 0.3):
        before = {path: layer.dense().detach() for path, layer in modules.structured(net).items()}
        callback.cut(module, optimizer, size)
        assert size - 0.05 < numbers(net) / dense <= size
        for path, weight in before.items():
            layer = modules.structured(net)[path]
            expected = structures.fit("svd", weight, rank=layer.rank, unfolding=layer.unfolding).dense()
            torch.testing.assert_close(layer.dense(), expected, atol=1e-5, rtol=1e-4)
    fresh = module.configure_optimizers()
    for now, new in zip(optimizer.param_groups, fresh.param_groups, strict=True):
        assert all(a is b for a, b in zip(now["params"], new["params"], strict=True))


def test_a_structure_without_an_order_is_shared_out_uniformly() -> None:
    callback = during("truncate")
    callback.total = 64
    unordered = {"rate_distortion": structures.Structure.rate_distortion}
    callback.family = type("Plain", (structures.family("svd"),), unordered)
    allotment = callback.allocate({"a": torch.randn(8, 8)}, 0.9)["a"]
    assert allotment is not None and allotment.size is not None and allotment.options.rank is None


def test_a_layer_that_pays_better_dense_is_dense_after_the_trace_norm() -> None:
    net = model()
    of = plan(size=0.9, budget="uniform", options={"rank_multiple": 1, "unfolding": "input"})
    callback = during("trace_norm", of)
    callback.begin(net)
    module = AcousticModule(net, criteria.build("ctc", 6), MODULE_OPTIONS, 0, 100.0)
    assert numbers(net) > numbers(model())
    callback.cut(module, module.configure_optimizers(), 0.9)
    assert numbers(net) <= 0.9 * numbers(model())
    callback = during("trace_norm", plan(size=0.999999))
    callback.total = numbers(model())
    callback.cut(module, module.configure_optimizers(), 1.0)
    assert numbers(net) <= 0.9 * numbers(model()), "what is small stays small"


@pytest.mark.parametrize(("name", "of", "changed", "message"), [
    ("truncate", plan("dense", options={}), {}, "needs a structure"),
    ("trace_norm", plan("semi_orthogonal"), {}, "is for structure=svd, not semi_orthogonal"),
    ("truncate", plan(size=None), {}, "needs size="),
    ("truncate", Plan("tied", 0.7), {}, "tied is not for a trained model: .*schedule=pull"),
    ("pull", plan(), {}, "is for structure=tied, not svd"),
    ("pull", Plan("tied", 0.7), {"end": 0}, "end above 0 and at most 1"),
    ("scratch", Plan("tied", options={"rank": 1}, include=("layers.0.conv",)), {}, "layers of one shape"),
    ("truncate", plan(), {"start": 0.95}, "0 <= start <= end <= 1"),
    ("truncate", plan(), {"steps": 0}, "steps is at least 1"),
    ("trace_norm", plan(), {"penalty": -1}, "penalty is at least 0"),
    ("truncate", plan(size=2e-3), {}, "size 0.002 cannot be reached"),
    ("truncate", plan(include=("nothing",)), {}, "selects no layer"),
])
def test_mistakes_are_told_before_the_training(name: str, of: Plan, changed: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        during(name, of, **changed).begin(model())


def test_averages_need_one_shape() -> None:
    for average in (AverageOptions("best", 1), AverageOptions("last", 8)):
        with pytest.raises(UserError, match="changes shapes"):
            during("truncate", training=TrainingOptions(epochs=8, average=average))
    during("scratch", training=TrainingOptions(epochs=8, average=AverageOptions("best", 8)))


def test_a_structure_needs_a_schedule_and_a_schedule_a_dense_model() -> None:
    assert build(compose("train"), TRAINING) == []
    with pytest.raises(UserError, match="structure=svd has no effect"):
        build(compose("train", ["structure=svd"]), TRAINING)
    made = build(compose("train", ["structure=svd", "schedule=truncate", "size=0.1", "seed=3"]), TRAINING)
    assert [(one.plan.structure, one.plan.size, one.plan.seed, len(one.cuts)) for one in made] == [("svd", 0.1, 3, 4)]
    net = model()
    during("scratch").begin(net)
    with pytest.raises(UserError, match="compressed already"):
        during("truncate").begin(net)


@pytest.mark.parametrize("name", ["scratch", "trace_norm", "truncate"])
def test_a_model_is_small_when_its_training_ends(
        name: str, tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tiny_corpus, tmp_path, *SMALL, f"schedule={name}") == 0
    facts = json.loads((tmp_path / "train.json").read_text())
    sizes = [epoch["parameters"] for epoch in facts["by_epoch"]]
    assert len(sizes) == 4 and all(epoch["audio_seconds_per_second"] > 0 for epoch in facts["by_epoch"])
    net = compression.load(tmp_path / "model.safetensors")
    dense = models.build(net.config)  # type: ignore[arg-type]
    assert sizes[-1] == numbers(net) <= 0.4 * numbers(dense) and record.layers(net)
    assert (len(set(sizes)) == 1) == (name == "scratch") and sorted(sizes, reverse=True) == sizes
    assert capsys.readouterr().out.count("M parameters from") == {"scratch": 0, "trace_norm": 1}.get(name, 4)
    state = weights(tmp_path / "checkpoints" / "003.ckpt")
    assert {key: value.shape for key, value in net.state_dict().items()} == {k: v.shape for k, v in state.items()}


def test_semi_orthogonal_factors_stay_so(tiny_corpus: Path, tmp_path: Path) -> None:
    """After truncation during training, with the constraint at every step: orthonormal rows up to one scale."""
    more = ["structure=semi_orthogonal", "schedule=truncate", "training.semi_orthogonal_every=1"]
    assert train(tiny_corpus, tmp_path, *SMALL, *more) == 0
    found = modules.structured(compression.load(tmp_path / "model.safetensors"))
    assert found
    for layer in found.values():
        values = np.linalg.svd(layer.right.detach().flatten(1).numpy(), compute_uv=False)
        assert layer.name == "semi_orthogonal" and values.max() / values.min() < 1.01


def test_scratch_does_not_overwrite_a_trained_model(
        tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(tmp_path / "dense.safetensors", model())
    arguments = ["train", *prepared.folders(tiny_corpus), "--init", str(tmp_path / "dense.safetensors"),
                 "--out", str(tmp_path / "exp")]
    assert main([*arguments, *OPTIONS, *SMALL, "schedule=scratch"]) == 1
    assert "would be lost" in capsys.readouterr().err
