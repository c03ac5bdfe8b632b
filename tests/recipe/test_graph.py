"""The sweep as a graph: what waits for what, and what is done."""

from pathlib import Path

import pytest

from asrcompress.errors import UserError
from asrcompress.recipe import graph
from asrcompress.recipe.settings import Settings, from_words, to_words

SETTINGS = Settings(methods=("svd",), sizes=(0.5,), controls=("small=tdnn_small",), searches=("greedy",),
                    test_sets=("dev-quick",), train_sets=("train-quick",),
                    experiments=("int8=quantized,quantization=int8,epochs=0", "both=quantized,from=svd-0.5,epochs=0"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def done(*names: str) -> None:
    for name in names:
        Path("exp", name).mkdir(parents=True)
        Path("exp", name, ".done").write_text('{"digest": "x", "options": {}, "inputs": {}}')


def test_a_task_waits_for_those_that_make_what_it_reads() -> None:
    found = {task.key: set(task.needs) for task in graph.tasks(SETTINGS, graph.STAGES)}
    dense = "train-dense dense"
    assert found == {
        dense: set(), "train-controls small": set(), "compress svd-0.5": {dense}, "compress int8": {dense},
        "compress both": {dense, "compress svd-0.5"}, "decode dense": {dense},
        "decode small": {"train-controls small", dense, "decode dense"},
        "decode svd-0.5": {"compress svd-0.5", dense, "decode dense"},
        "decode int8": {"compress int8", dense, "decode dense"},
        "decode both": {"compress both", dense, "decode dense"}}


@pytest.mark.parametrize("stages", [graph.STAGES, ("train-dense", "compress", "train-controls")])
def test_the_order_is_one_in_which_they_could_run(stages: tuple[str, ...]) -> None:
    seen: set[str] = set()
    for task in graph.tasks(SETTINGS, stages):
        assert seen.issuperset(task.needs)
        seen.add(task.key)


def test_what_is_there_already_is_not_waited_for() -> None:
    done("dense", "old")
    found = {task.key: task.needs for task in graph.tasks(SETTINGS, ("compress", "decode"))}
    assert found["compress svd-0.5"] == () and found["compress both"] == ("compress svd-0.5",)
    assert found["decode old"] == ("decode dense",) and found["decode dense"] == ()


def test_an_experiment_may_start_from_one_that_stands_after_it() -> None:
    settings = Settings(methods=(), experiments=("b=quantized,from=a,epochs=0", "a=quantized,epochs=0"))
    done("dense")
    assert [task.key for task in graph.tasks(settings, ("compress",))] == ["compress a", "compress b"]


def test_seeds_make_models_of_their_own() -> None:
    settings = Settings(methods=("svd",), sizes=(0.5,), seed=1, seeds=(1, 2), controls=("small=tdnn_small",))
    jobs = {task.name: task.job for task in graph.tasks(settings, ("train-dense", "train-controls", "compress"))}
    assert {name: job.settings.seed for name, job in jobs.items() if job} == {
        "dense": 1, "small": 1, "small-seed2": 2, "svd-0.5": 1, "svd-0.5-seed2": 2}


@pytest.mark.parametrize(("settings", "stages", "said"), [
    (SETTINGS, ("compress",), "svd-0.5 needs the model dense, which is neither done nor made"),
    (Settings(experiments=("a=quantized,from=b,epochs=0", "b=quantized,from=a,epochs=0"), methods=()),
     ("train-dense", "compress"), "a and b wait for each other"),
    (Settings(controls=("svd-0.5=tdnn_small",)), graph.STAGES, "two models of the sweep would be called svd-0.5"),
    (Settings(decode=("moon",)), graph.STAGES, "a model to decode is not done: exp/moon"),
    (Settings(methods=("magic",)), graph.STAGES, "magic")])
def test_mistakes_are_found_before_anything_starts(settings: Settings, stages: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        graph.tasks(settings, stages)


def test_a_decoding_in_parts_is_joined_after_them() -> None:
    done("dense", "small")
    settings = Settings(decode=("small",), decode_parts=2, searches=("greedy",), test_sets=("dev-quick",))
    found = {task.key: task.needs for task in graph.tasks(settings, ("decode",))}
    assert found == {
        "decode dense part 0": (), "decode dense part 1": ("decode dense part 0",),
        "decode dense part 2": ("decode dense part 0",), "decode dense": ("decode dense part 1", "decode dense part 2"),
        "decode small part 0": ("decode dense part 0",), "decode small part 1": ("decode small part 0",),
        "decode small part 2": ("decode small part 0",),
        "decode small": ("decode small part 1", "decode small part 2", "decode dense")}


def test_one_model_of_a_stage_is_chosen_by_its_name() -> None:
    with pytest.raises(UserError, match="compress makes no model moon; it makes svd-0.5, int8, both"):
        graph.only(SETTINGS, "compress", "moon")
    with pytest.raises(UserError, match="--only is for train-dense, train-controls, compress, decode, not for lang"):
        graph.only(SETTINGS, "lang", "dense")


def test_settings_go_through_a_command_and_come_back() -> None:
    settings = Settings(corpus=Path("/it's a,b"), train_options=("model.stack=[{dim: 8}]", "a=b c"), note="a = 'b'",
                        scales=(0.1, 1 / 3), seeds=(0, 1), command='./run.sh --sizes "0.5 0.25"', scratch_epochs=None)
    words = dict(word.removeprefix("--").split("=", 1) for word in to_words(settings))
    assert from_words({key.replace("-", "_"): text for key, text in words.items()}) == settings
