"""The list of jobs."""

import pickle

import pytest

from asrcompress.errors import UserError
from asrcompress.recipe import models, sweep
from asrcompress.recipe.settings import Settings
from asrcompress.recipe.sweep import Method


def names(**options: tuple) -> list[str]:
    return [job.name for job in sweep.compressed(Settings(**options))]


def test_every_method_at_every_size_in_every_way() -> None:
    assert names(methods=("svd", "cp"), sizes=(0.5, 0.25)) == ["svd-0.5", "svd-0.25", "cp-0.5", "cp-0.25"]
    assert names(when=("after", "during", "scratch"), schedule=("truncate", "trace_norm"), sizes=(0.5,)) == [
        "svd-0.5", "svd-0.5-during", "svd-0.5-during-trace_norm", "svd-0.5-scratch"]


def test_tied_is_made_from_scratch_or_pulled() -> None:
    assert names(methods=("tied,span=4",), when=("during", "scratch"), schedule=("pull",), sizes=(0.37,)) == [
        "tied-span=4-0.37-during-pull", "tied-span=4-0.37-scratch"]


def test_options_of_a_method_are_in_the_name_the_row_and_the_overrides() -> None:
    job = sweep.compressed(Settings(methods=("svd,data_aware=true,unfolding=input",), sizes=(0.25,)))[0]
    assert job.name == "svd-data_aware-unfolding=input-0.25" and job.method is not None
    assert job.method.text == "data_aware=true,unfolding=input" and Method("svd").text is None
    assert job.method.overrides() == ["structure=svd", "structure.data_aware=true", "structure.unfolding=input"]


def test_a_method_may_choose_its_budget() -> None:
    job = sweep.compressed(Settings(methods=("svd,budget=conformer,data_aware=true",), sizes=(0.25,)))[0]
    assert job.name == "svd-budget=conformer-data_aware-0.25" and job.method is not None
    assert job.method.overrides() == ["structure=svd", "budget=conformer", "structure.data_aware=true"]


def test_experiments_name_their_keys_and_where_they_start() -> None:
    text = "svd-int4=quantized,from=svd-0.5,quantization=int4,quantization.exclude=[output,layers.0],epochs=0"
    job = sweep.experiment(Settings(), text)
    assert (job.name, job.experiment, job.source) == ("svd-int4", "quantized", "svd-0.5")
    assert job.keys == ("quantization=int4", "quantization.exclude=[output,layers.0]", "epochs=0")
    assert set(job.needs) == {"dense", "svd-0.5"} and sweep.experiment(Settings(), "a=epr").needs == ("dense",)


def test_an_experiment_may_take_the_epochs_of_the_recipe() -> None:
    job = sweep.experiment(Settings(epochs=5), "a=during,model=tdnn,epochs={epochs}")
    assert job.keys == ("model=tdnn", "epochs=5")
    steps = models.experiment_trainings(job)[0]
    assert [step["training"]["epochs"] for step in steps] == [5] and steps[0]["schedule"]["name"] == "truncate"


def test_experiments_name_their_teachers() -> None:
    job = sweep.experiment(Settings(), "a=distilled,teacher=dense+tdnn,criterion=path_kl")
    assert job.teachers == ("dense", "tdnn") and job.keys == ("criterion=path_kl",)
    assert job.needs == ("dense", "tdnn") and sweep.experiment(Settings(), "a=distilled").teachers == ("dense",)


@pytest.mark.parametrize(("criterion", "needs"), [("", ()), ("distillation", ("dense",))])
def test_a_model_from_scratch_waits_for_the_dense_one_only_where_that_teaches_it(criterion: str, needs: tuple) -> None:
    settings = Settings(when=("during", "scratch"), scratch_criterion=criterion)
    assert {job.needs for job in [*sweep.controls(settings), *sweep.compressed(settings)]} == {needs}
    assert sweep.dense(settings).needs == ()


def test_jobs_are_plain_data() -> None:
    settings = Settings(experiments=("deep=deep_compression",))
    jobs = [sweep.dense(settings), *sweep.controls(settings), *sweep.compressed(settings)]
    assert pickle.loads(pickle.dumps(jobs)) == jobs
    assert jobs[0].needs == () and [job.name for job in jobs[1:3]] == ["tdnnf", "dense-small"]


@pytest.mark.parametrize(("options", "said"), [
    ({"methods": ("svd", "svd")}, "two models of the sweep would be called svd-0.5"),
    ({"methods": ("svd,data_aware",)}, "write 'data_aware=VALUE'"),
    ({"experiments": ("dense=epr",)}, "two models of the sweep would be called dense"),
    ({"experiments": ("a/b=epr",)}, "'a/b' cannot be the name of a model"),
    ({"experiments": ("a=epr,rate",)}, "'rate' is not KEY=VALUE")])
def test_mistakes_are_sentences(options: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        sweep.compressed(Settings(**options))


@pytest.mark.parametrize(("controls", "name"), [(("dense=tdnn_small",), "dense"), (("a=tdnn", "a=tdnn_small"), "a")])
def test_controls_have_names_of_their_own(controls: tuple, name: str) -> None:
    with pytest.raises(UserError, match=f"two models of the sweep would be called {name}"):
        sweep.controls(Settings(controls=controls))


DIFFERENT: dict = {"scratch_options": ("training.epoch_fraction=0.5",), "finetune_options": ("training.warmup=0.1",),
                   "finetune_criterion": "ctc", "train_options": ("training.workers=0",)}


@pytest.mark.parametrize(("text", "taken"), [
    ("a=during,model=tdnn_small", {"scratch_options", "train_options"}),
    ("a=distilled", {"finetune_options", "train_options"}),
    ("a=quantized", {"finetune_options", "finetune_criterion", "train_options"}), ("a=quantized,epochs=0", set())])
def test_an_experiment_depends_on_the_options_that_its_trainings_take(text: str, taken: set[str]) -> None:
    made = models._options(sweep.experiment(Settings(), text))
    other = {key: models._options(sweep.experiment(Settings(**{key: value}), text)) for key, value in DIFFERENT.items()}
    assert {key for key, options in other.items() if options != made} == taken
