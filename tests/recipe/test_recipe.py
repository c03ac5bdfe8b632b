"""The stages of a recipe, on the spoken corpus of the tests, in folders with the names that people give them."""

import copy
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from asrcompress import models as models_of_speech
from asrcompress.compression import load, save_model
from asrcompress.errors import UserError
from asrcompress.recipe import models, rows, stages, sweep
from asrcompress.recipe.settings import Settings
from asrcompress.report import rows as result_rows
from tests.conftest import REPO

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning")
NAME = "Jürgen run(2) lr=2e-3 a,b it's"
OPTIONS = ("training.batch_seconds=10", "training.workers=0", "training.trainer.accelerator=cpu",
           "training.precision=32-true")
K2_PYTHON = os.environ.get("K2_PYTHON") or str(REPO / ".venv-k2" / "bin" / "python")
needs_k2 = pytest.mark.skipif(not Path(K2_PYTHON).exists(), reason="there is no k2 environment")


@pytest.fixture(scope="module")
def recipe(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Settings]:
    """A folder with sets, a lang folder and a dense model, and the settings that made them."""
    folder = tmp_path_factory.mktemp("recipe") / NAME
    folder.mkdir()
    before = os.getcwd()
    os.chdir(folder)
    try:
        settings = Settings(corpus=tiny_corpus, held_out_minutes=0.1, train_sets=("train-quick",), criterion="ctc",
                            test_sets=("dev-quick",), model="tdnn_quick", epochs=1, methods=("svd,data_aware=true",),
                            sizes=(0.5,), controls=(), train_options=OPTIONS, nj=1, command="./run.sh --epochs 1")
        for stage in ("prepare", "lang", "train-dense"):
            stages.run([stage], settings)
    finally:
        os.chdir(before)
    return folder, settings


def test_a_folder_may_have_any_name(recipe: tuple[Path, Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, settings = recipe
    monkeypatch.chdir(folder)
    stages.run(["compress"], settings)  # the teacher's path and the calibration set lie in that folder
    row = rows.of_model(Path("exp/svd-data_aware-0.5"))
    assert row["structure"] == "svd" and row["options"] == "data_aware=true" and row["size"] == 0.5
    assert row["when"] == "after" and row["train_set"] == "train-quick" and row["command"] == "./run.sh --epochs 1"
    config = json.loads(Path("exp/svd-data_aware-0.5/config.json").read_text())
    assert config["criterion"]["teacher"] == "exp/dense/model.safetensors" and config["structure"]["name"] == "dense"
    dense, small = (Path("exp", name, "model.packed").stat().st_size for name in ("dense", "svd-data_aware-0.5"))
    assert 0.4 < small / dense < 0.65


def test_what_is_done_is_skipped_and_other_epochs_stop(recipe: tuple[Path, Settings],
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    folder, settings = recipe
    monkeypatch.chdir(folder)
    made = Path("exp/dense/model.safetensors").stat().st_mtime_ns
    stages.run(["train-dense"], replace(settings, nj=2, command="./run.sh --nj 2"))
    assert Path("exp/dense/model.safetensors").stat().st_mtime_ns == made
    with pytest.raises(UserError, match=r"exp/dense was made otherwise: --epochs 1 -> 24\. --redo makes it again"):
        stages.run(["train-dense"], replace(settings, epochs=24))


@pytest.fixture
def trained(recipe: tuple[Path, Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The dense model of the recipe, as half.safetensors in a new folder, where one stands then, with the same data."""
    model = load(recipe[0] / "exp/dense/model.safetensors")
    save_model(tmp_path / "half.safetensors", copy.deepcopy(model).half())
    monkeypatch.chdir(tmp_path)
    Path("data").symlink_to(recipe[0] / "data")
    return model


def test_a_model_that_was_trained_before_may_be_the_dense_one(recipe: tuple[Path, Settings], trained: nn.Module,
                                                              tmp_path: Path) -> None:
    folder, settings = recipe
    settings = replace(settings, dense_model=tmp_path / "half.safetensors", epochs=99)
    stages.run(["train-dense", "compress"], settings)
    taken = load(Path("exp/dense/model.safetensors"))
    for wanted, found in zip(trained.parameters(), taken.parameters(), strict=True):
        assert found.dtype == torch.float32 and torch.equal(found, wanted.half().float())
    assert rows.of_model(Path("exp/dense"))["train_seconds"] is None and Path("exp/svd-data_aware-0.5/.done").exists()
    with pytest.raises(UserError, match="exp/dense was made otherwise: --dense-model"):
        stages.run(["train-dense"], replace(settings, dense_model=folder / "exp/dense/model.safetensors"))
    other = replace(settings, dense_model=tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="other.safetensors"):
        stages.run(["train-dense"], replace(other, redo=True))
    save_model(tmp_path / "other.safetensors", models_of_speech.build({**trained.config, "vocab": 7}))
    with pytest.raises(UserError, match=r"--dense-model other.safetensors has 7 tokens, and .*tokens.txt has"):
        stages.run(["train-dense"], replace(other, redo=True))


def test_the_dense_model_may_be_trained_on_from_another(recipe: tuple[Path, Settings], trained: nn.Module,
                                                        tmp_path: Path) -> None:
    folder, settings = recipe
    settings = replace(settings, dense_init=tmp_path / "half.safetensors",
                       train_options=(*OPTIONS, "training.optimizer.lr=1e-9"))
    stages.run(["train-dense"], settings)
    assert json.loads(Path("exp/dense/config.json").read_text())["training"]["ctc_epochs"] == 0
    found = load(Path("exp/dense/model.safetensors"))
    for wanted, parameter in zip(trained.parameters(), found.parameters(), strict=True):  # hardly moved at such a rate
        assert parameter.dtype == torch.float32
        torch.testing.assert_close(parameter, wanted.half().float(), rtol=0, atol=1e-5)
    with pytest.raises(UserError, match="exp/dense was made otherwise: --dense-init"):
        stages.run(["train-dense"], replace(settings, dense_init=folder / "exp/dense/model.safetensors"))
    with pytest.raises(UserError, match="give one of them"):
        replace(settings, dense_model=tmp_path / "half.safetensors")


def test_a_mistake_is_found_before_the_first_training(recipe: tuple[Path, Settings],
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    folder, settings = recipe
    monkeypatch.chdir(folder)
    for wrong in ({"methods": ("cp", "svd,data_awake=true")}, {"methods": ("cp", "magic")}, {"methods": ("cp", "tied")},
                  {"experiments": ("a=epr,rat=3",)}, {"experiments": ("a=quantized,quantization.moon=1",)},
                  {"methods": ("cp", "svd"), "when": ("during",), "epochs": 2},
                  {"methods": ("cp",), "experiments": ("a=quantized,from=typo,epochs=0",)}):
        with pytest.raises(UserError):
            stages.run(["compress"], replace(settings, **wrong))
        assert not Path("exp/cp-0.5").exists()


def test_a_mistake_in_a_later_stage_is_found_before_the_first(recipe: tuple[Path, Settings], tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="a needs the model typo"):
        stages.run(["train-dense", "compress"], replace(recipe[1], experiments=("a=quantized,from=typo",)))
    assert not Path("exp").exists()


def test_a_model_waits_for_the_one_that_it_starts_from(recipe: tuple[Path, Settings],
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recipe[0])
    made: list[str] = []
    monkeypatch.setattr(sweep, "run", lambda job: made.append(job.name))
    experiments = ("b=quantized,from=a,epochs=0", "a=quantized,epochs=0")
    stages.run(["compress"], replace(recipe[1], methods=(), experiments=experiments))
    assert made == ["a", "b"]


@pytest.mark.parametrize("test_set", ["dev", "train-quick"])
def test_a_test_set_is_not_what_models_are_trained_on(recipe: tuple[Path, Settings], test_set: str) -> None:
    with pytest.raises(UserError, match="cannot be called dev|is among --train-sets and among --test-sets"):
        stages.run(["decode"], replace(recipe[1], test_sets=(test_set,)))


@pytest.mark.parametrize("options, teacher, files", [
    ((), "dense", "exp/dense/model.safetensors"),
    (("criterion.teacher=[exp/dense/model.safetensors,b]",), "dense b", ["exp/dense/model.safetensors", "b"]),
    ((), None, None),
])
def test_a_row_says_who_taught(tmp_path: Path, options: tuple[str, ...], teacher: str | None, files: object) -> None:
    criterion = "lfmmi" if teacher is None else "distillation"
    settings = Settings(corpus=tmp_path, finetune_criterion=criterion, finetune_options=options)
    (job, *_) = sweep.compressed(settings)
    assert models.training_config(job)["criterion"].get("teacher") == files
    assert models._shared(job)["teacher"] == teacher


@pytest.mark.slow
@needs_k2
def test_the_whole_recipe_runs_in_such_a_folder(tiny_corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / NAME
    options = {"corpus": tiny_corpus, "dir": folder, "train-sets": "train-quick", "test-sets": "dev-quick",
               "held-out-minutes": 0.1, "model": "tdnn_quick", "epochs": 2, "sizes": "0.5", "controls": "",
               "criterion": "ctc", "experiments": "int8=quantized,quantization=int8,quantization.group=8,epochs=1",
               "train-options": " ".join(OPTIONS), "devices": "dense svd-0.5", "precisions": "float32 int8-dynamic"}
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    command = [REPO / "recipes" / "librispeech" / "run.sh", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = result_rows.read(folder / "results.jsonl")
    packed = {(row["name"], row["search"]) for row in found if not row["precision"]}
    assert packed == {(name, search) for name in ("dense", "svd-0.5", "int8") for search in ("greedy", "tgsmall")}
    device = {(row["name"], row["precision"], row["search"]) for row in found if row["precision"]}
    assert len(device) == 2 * 2 * 3 and all(row["wer"] is not None for row in found if row["search"] != "greedy")
    assert (folder / "RESULTS.md").exists()
    before = {path: path.stat().st_mtime_ns for path in (folder / "exp").rglob("*") if path.is_file()}
    assert subprocess.run(command, capture_output=True, text=True).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in (folder / "exp").rglob("*") if path.is_file()} == before
    stopped = subprocess.run([*command, "--epochs", "3"], capture_output=True, text=True)
    assert stopped.returncode == 1 and "exp/dense was made otherwise: --epochs 2 -> 3" in stopped.stderr
