"""Pipelines, on the spoken corpus of the tests: what comes out is the packed file, and a second run repeats nothing."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from asrcompress import compression
from asrcompress.cli import main
from asrcompress.compression import modules, packed, quantization
from asrcompress.compression.packed import writer
from asrcompress.errors import UserError
from asrcompress.recipe import pipeline
from asrcompress.training import run
from tests import prepared
from tests.training.test_train import OPTIONS, train

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning")
TRAIN = [option for option in OPTIONS if not option.startswith(("model.", "training.epochs"))]


@pytest.fixture(scope="module")
def dense(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dense")
    assert train(tiny_corpus, out, "training.epochs=1") == 0
    return out / "model.safetensors"


def experiment(corpus: Path, dense: Path, out: Path, *overrides: str) -> int:
    return main(["experiment", "--data", str(prepared.data(corpus)), "--lang", str(prepared.lang(corpus)), "--model",
                 str(dense), "--out", str(out), *overrides, "--train", *TRAIN])


def test_deep_compression_from_one_command(tiny_corpus: Path, dense: Path, tmp_path: Path) -> None:
    overrides = ["experiment=deep_compression", "experiment.density=0.25", "experiment.entries=8"]
    assert experiment(tiny_corpus, dense, tmp_path, *overrides) == 0
    model = packed.load(tmp_path / "model.packed")
    for name, weight in model.named_parameters():
        if weight.dim() > 1:  # a BatchNorm was folded into each row
            assert all(len(torch.unique(row)) <= 9 for row in weight), name
    weights = torch.cat([w.flatten() for w in model.parameters() if w.dim() > 1])
    assert float((weights != 0).double().mean()) == pytest.approx(0.25, abs=0.02)
    said = json.loads((tmp_path / "train.json").read_text())
    assert said["structure"] == "dense" and said["quantization"] == "pruned_codebook" and said["coder"] == "huffman"
    whole = 4 * sum(t.numel() for t in compression.load(dense).state_dict().values())
    assert said["size"] == pytest.approx((tmp_path / "model.packed").stat().st_size / whole, abs=1e-3)
    steps = [json.loads((tmp_path / step / "train.json").read_text()) for step in ("2-train", "4-train")]
    assert said["train_seconds"] == pytest.approx(sum(step["train_seconds"] for step in steps), abs=0.06)
    trained = (tmp_path / "4-train" / "train.json").stat().st_mtime_ns
    assert experiment(tiny_corpus, dense, tmp_path, *overrides) == 0
    assert (tmp_path / "4-train" / "train.json").stat().st_mtime_ns == trained


def test_a_step_follows_from_all_that_its_command_was_told(tiny_corpus: Path, dense: Path, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch,
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    folders = {"--data": prepared.data(tiny_corpus), "--lang": prepared.lang(tiny_corpus)}
    for name, files in (("--data", ["train-quick.text", "dev.text"]), ("--lang", ["tokens.txt", "lexicon.txt"])):
        (tmp_path / name).mkdir()
        for file in files:
            shutil.copy(folders[name] / file, tmp_path / name)
    made: list[str] = []

    def train(config: dict[str, Any], data: Path, lang: Path, out: Path, init: Path) -> None:
        made.append("train")
        shutil.copy(init, out / "model.safetensors")
        (out / "train.json").write_text('{"train_seconds": 1}')

    def target_words(*_: object) -> list[str]:
        made.append("target")
        return ["quantization=int8"]

    monkeypatch.setattr(run, "train", train)
    monkeypatch.setattr(pipeline, "target_words", target_words)
    whole = shutil.copy(dense, tmp_path / "dense.safetensors")

    def again(*more: str, rate: str = "1e-3") -> list[str]:
        made.clear()
        words = [word for name in folders for word in (name, str(tmp_path / name))]
        done = main(["experiment", *words, "--model", str(dense), "--dense", str(whole), "--out", str(tmp_path / "out"),
                     "experiment.steps=[{train: ['training=finetune']}, {target: ['bytes=1/2']}]", *more, "--train",
                     "train_sets=[train-quick]", f"training.optimizer.lr={rate}"])
        return made if done == 0 else [capsys.readouterr().err]

    assert again() == ["train", "target"] and again() == []
    assert "1-train was made otherwise: --train" in again(rate="1e-4")[0]
    assert again("--redo", rate="1e-4") == ["train"]  # and the target of the same model
    for file, steps in (("--lang/tokens.txt", ["train"]), ("--data/train-quick.text", ["train"]),
                        ("--data/dev.text", ["train", "target"])):
        with (tmp_path / file).open("a") as stream:
            stream.write("\n")
        assert f"{Path(file).name} has changed" in again(rate="1e-4")[0]
        assert again("--redo", rate="1e-4") == steps
    shutil.copy(tmp_path / "out" / "2-target" / "model.safetensors", whole)
    assert "the dense model has changed" in again(rate="1e-4")[0]


@pytest.mark.slow
def test_a_model_is_trained_inside_a_number_of_bytes(tiny_corpus: Path, dense: Path, tmp_path: Path) -> None:
    overrides = ["experiment=budget", "experiment.target=1/6"]
    assert experiment(tiny_corpus, dense, tmp_path, *overrides) == 0
    tables = [list(folder.glob("choices-*.jsonl")) for folder in (dense.parent, tmp_path / "2-train", tmp_path)]
    assert [len(found) for found in tables] == [1, 1, 0]  # a table beside each model that a target was chosen for
    target = writer.length(compression.load(dense)) // 6
    assert 0.9 * target < (tmp_path / "model.packed").stat().st_size <= target
    floats, bits, last = (compression.load(tmp_path / step / "model.safetensors") for step in
                          ("1-target", "3-target", "5-target"))
    assert not quantization.attached(floats) and quantization.attached(bits)
    assert modules.structured(floats).keys() == modules.structured(last).keys()
    assert quantization.specs(bits) == quantization.specs(last)
    said = json.loads((tmp_path / "train.json").read_text())
    steps = [json.loads((tmp_path / step / "train.json").read_text()) for step in ("2-train", "4-train")]
    assert said["train_seconds"] == pytest.approx(sum(step["train_seconds"] for step in steps), abs=0.06)
    assert said["size"] < 1 / 5


def test_structures_may_be_chosen_for_several_times_the_target(dense: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.packed"
    assert main(["packed", "save", "--model", str(dense), "--out", str(whole)]) == 0
    size = whole.stat().st_size
    for told, wanted in (("1/4", size * 3 // 8), ("1000", 1500), ("1/1.2", size)):  # at most what the dense model has
        words = pipeline.target_words([f"bytes={told}", "times=1.5", "quantizations=[epr]"], dense, Path("d"), tmp_path)
        assert words[0] == "--target" and abs(int(words[1]) - wanted) <= 2
        assert words[2:] == ["--calibrate", "d", "--choices", str(tmp_path), "quantizations=[epr]"]
    for wrong in ("much", "0", "-1", "nan", "inf"):
        with pytest.raises(UserError, match=f"times={wrong} of its bytes; give a number above 0"):
            pipeline.target_words(["bytes=1/4", f"times={wrong}"], dense, Path("d"), tmp_path)


def test_no_epochs_is_after_training_only(tiny_corpus: Path, dense: Path, tmp_path: Path) -> None:
    overrides = ["experiment=quantized", "experiment.quantization=int8", "experiment.coder=raw", "experiment.epochs=0"]
    assert experiment(tiny_corpus, dense, tmp_path, *overrides) == 0
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["1-compress"]
    assert {row["quantization"] for row in packed.info(tmp_path / "model.packed")} >= {"int8"}


def test_the_size_of_a_pipeline_from_a_compressed_model_is_that_of_the_dense_one(tiny_corpus: Path, dense: Path,
                                                                                  tmp_path: Path) -> None:
    small = tmp_path / "svd.safetensors"
    assert main(["compress", "--model", str(dense), "--out", str(small), "structure=svd", "size=0.5"]) == 0
    overrides = ["experiment=quantized", "experiment.quantization=int8", "experiment.coder=raw", "experiment.epochs=0"]
    assert experiment(tiny_corpus, small, tmp_path / "out", "--dense", str(dense), *overrides) == 0
    said = json.loads((tmp_path / "out" / "train.json").read_text())
    whole = 4 * sum(t.numel() for t in compression.load(dense).state_dict().values())
    assert said["structure"] == "svd" and said["quantization"] == "int8"
    assert said["size"] == pytest.approx((tmp_path / "out" / "model.packed").stat().st_size / whole, abs=1e-3)


def test_values_of_a_pipeline_take_their_options(tiny_corpus: Path, dense: Path, tmp_path: Path,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["experiment=quantized", "experiment.quantization=int4", "experiment.coder=raw", "experiment.epochs=0"]
    more = ["quantization.group=8", "quantization.affine=true"]
    assert experiment(tiny_corpus, dense, tmp_path / "a", *overrides, *more) == 0
    entries = quantization.specs(compression.load(tmp_path / "a" / "model.safetensors")).values()
    assert {(entry["group"], entry["affine"]) for entry in entries} == {(8, True)}
    assert experiment(tiny_corpus, dense, tmp_path / "b", *overrides, "quantization.moon=1") == 1
    assert "no step of the experiment has a method with the option 'quantization.moon'" in capsys.readouterr().err


def test_an_unknown_step_is_a_sentence(tiny_corpus: Path, dense: Path, tmp_path: Path,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    assert experiment(tiny_corpus, dense, tmp_path, "experiment.steps=[{dance: []}]") == 1
    assert "it is compress, target or train" in capsys.readouterr().err


def test_an_option_goes_to_the_steps_whose_method_has_it() -> None:
    config = {"experiment": {"steps": [
        {"compress": ["quantization=pruned", "quantization.density=0.1"]}, {"train": ["training.epochs=0"]},
        {"compress": ["quantization=pruned_codebook", "coder=range"]}, {"train": ["training.epochs=2"]}]}}
    found = pipeline.steps(config, ["quantization.entries=8", "quantization.exclude=[output]", "coder.contexts=false",
                                    "density=0.2"])
    assert found == [
        ("compress", ["quantization=pruned", "quantization.density=0.1", "quantization.exclude=[output]"]),
        ("compress", ["quantization=pruned_codebook", "coder=range", "quantization.entries=8",
                      "quantization.exclude=[output]", "coder.contexts=false"]),
        ("train", ["training.epochs=2"])]
    for wrong in ("model.dim=8", "criterion.weight=0.5", "quantization.moon=1", "structure.rank=3", "nothing.at=all"):
        with pytest.raises(UserError, match="no step of the experiment has a method with the option"):
            pipeline.steps(config, [wrong])


def test_options_of_criteria_trainings_and_models_go_to_trainings() -> None:
    config = {"experiment": {"steps": [{"train": ["model=tdnn", "criterion=distillation"]},
                                       {"train": ["criterion=lfmmi"]}]}}
    found = pipeline.steps(config, ["criterion.teacher=a", "model.dropout=0", "training.workers=0"])
    assert found == [("train", ["model=tdnn", "criterion=distillation", "criterion.teacher=a", "model.dropout=0",
                                "training.workers=0"]), ("train", ["criterion=lfmmi", "training.workers=0"])]


@pytest.mark.parametrize("structure", [[], ["experiment.structure=svd", "experiment.size=0.5",
                                            "experiment.schedule=scratch", "structure.rank_multiple=4"]],
                         ids=["dense", "svd"])
def test_a_new_model_follows_a_teacher_and_then_the_transcripts(tiny_corpus: Path, dense: Path, tmp_path: Path,
                                                                structure: list[str]) -> None:
    overrides = [*structure, "experiment=taught", "experiment.model=tdnn_quick", "experiment.training=scratch",
                 "experiment.criterion=ctc", "experiment.epochs=1", "experiment.then_epochs=1",
                 f"criterion.teacher={dense}", "model.dropout=0.125"]
    assert experiment(tiny_corpus, dense, tmp_path, *overrides) == 0
    first, last = (compression.load(tmp_path / path / "model.safetensors") for path in ("1-train", "."))
    assert first.config["dropout"] == last.config["dropout"] == 0.125  # type: ignore[index]
    assert {one.name for one in modules.structured(last).values()} == ({"svd"} if structure else set())
    assert not torch.equal(first.output.weight, last.output.weight)  # type: ignore[union-attr,arg-type]
