"""What a dry run says of hours, against sums by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from lhotse import CutSet, MonoCut, SupervisionSegment

from asrcompress import config, models
from asrcompress.errors import UserError
from asrcompress.measure.macs import macs_per_second
from asrcompress.recipe import estimate, graph, launch
from asrcompress.recipe.settings import Settings

SETTINGS = Settings(model="tdnn_quick", controls=("small=tdnn_eighth",), sizes=(0.5,), epochs=6, finetune_epochs=2,
                    finetune_epoch_fraction=0.5, train_sets=("train-quick",), test_sets=("dev-quick",),
                    searches=("greedy", "tgsmall"), criterion="ctc",
                    experiments=("budget=budget,target=1/20,epochs=1",))


def prepared(name: str, seconds: float, speeds: int) -> None:
    """A set of one utterance at some speeds."""
    said = [SupervisionSegment("u" if i == 0 else f"u_sp{i}", "r", 0, seconds, text="WORD", custom={"origin": "u"})
            for i in range(speeds)]
    cuts = [MonoCut(f"cut-{i}", 0, seconds, 0, supervisions=[one]) for i, one in enumerate(said)]
    Path("data").mkdir(exist_ok=True)
    CutSet.from_cuts(cuts).to_file(f"data/{name}.jsonl.gz")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    estimate._speech.cache_clear()
    for name, seconds, speeds in (("train-quick", 1000.0, 3), ("dev", 40.0, 1), ("dev-quick", 60.0, 1)):
        prepared(name, seconds, speeds)


def macs(name: str) -> int:
    return macs_per_second(models.build({**config.compose("train", [f"model={name}"])["model"], "vocab": 70}))


def expected(rate: float) -> dict[str, float]:
    """By hand: seconds of speech x epochs x MACs x rate; a teacher adds a third, a budget's tables ten minutes each."""
    work, small = 1000 * macs("tdnn_quick"), 1000 * macs("tdnn_eighth")
    decode = 10 + 0.05 * 100 * 2
    return {"train-dense dense": 10 + 6 * work * rate, "train-controls small": 10 + 6 * small * rate,
            "compress svd-0.5": 10 + 2 * 0.5 * 4 / 3 * work * rate,
            "compress budget": 10 + 2 * 0.5 * 4 / 3 * work * rate + 3 * 600,
            **{f"decode {name}": decode for name in ("dense", "small", "svd-0.5", "budget")}}


def test_seconds_of_every_kind_of_task() -> None:
    found = estimate.seconds(graph.tasks(SETTINGS, graph.STAGES), SETTINGS)
    assert found == pytest.approx(expected(3e-11))


def test_the_dense_models_own_time_counts_once_it_was_trained() -> None:
    tasks = graph.tasks(SETTINGS, graph.STAGES)
    Path("exp/dense").mkdir(parents=True)
    Path("exp/dense/train.json").write_text(json.dumps({"train_seconds": 600.0}))
    assert estimate.seconds(tasks, SETTINGS) == pytest.approx(expected(600 / (6 * 1000 * macs("tdnn_quick"))))


def test_a_dense_model_that_was_taken_has_no_time_of_its_own() -> None:
    tasks = graph.tasks(SETTINGS, graph.STAGES)
    Path("exp/dense").mkdir(parents=True)
    Path("exp/dense/train.json").write_text("{}")
    assert estimate.seconds(tasks, SETTINGS) == pytest.approx(expected(3e-11))


def test_parts_share_the_time_of_a_decoding() -> None:
    settings = replace(SETTINGS, decode_parts=4)
    found = estimate.seconds(graph.tasks(settings, graph.STAGES), settings)
    assert [found[f"decode small{part}"] for part in (" part 0", *(f" part {i}" for i in range(1, 5)), "")] == (
        pytest.approx([10, *[10 + 0.05 * 100 * 2 / 4] * 4, 10]))


def test_a_dry_run_prints_the_jobs_and_starts_none(capsys: pytest.CaptureFixture[str],
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    launch.dry_run(graph.tasks(SETTINGS, graph.STAGES), SETTINGS)
    said = capsys.readouterr().out
    assert "8 jobs" in said and "compress svd-0.5" in said and "0 of 8 done" in said and "Nothing was started" in said
    assert not Path("exp").exists() and not Path("log").exists()


def test_a_set_that_is_not_prepared_is_a_sentence() -> None:
    Path("data/dev-quick.jsonl.gz").unlink()
    with pytest.raises(UserError, match="the prepared set data/dev-quick.jsonl.gz does not exist"):
        estimate.seconds(graph.tasks(SETTINGS, graph.STAGES), SETTINGS)
