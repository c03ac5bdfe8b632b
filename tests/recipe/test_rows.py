"""Rows of a recipe, and the file that several runs write."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from asrcompress import recognisers
from asrcompress.cli import main
from asrcompress.decoding import evaluate
from asrcompress.errors import UserError
from asrcompress.recipe import rows
from asrcompress.report import rows as result_rows
from tests.conftest import REPO

WRITER = """
import sys
from pathlib import Path
from asrcompress.report import rows
path, writer, ready = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for number in range(40):
    rows.put(path, {"name": f"model-{writer}-{number}", "test_set": "dev", "search": "greedy", "seed": number})
"""


def test_two_runs_that_write_rows_at_once_lose_nothing(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, results, name, tmp_path], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, text=True, cwd=REPO) for name in "ab"]
    for one in writers:
        assert one.stdout is not None and one.stdout.readline() == "ready\n"
    for one in writers:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    assert [one.wait(60) for one in writers] == [0, 0]
    for one in writers:
        one.communicate()
    names = [row["name"] for row in result_rows.read(results)]
    assert sorted(names) == sorted(f"model-{name}-{number}" for name in "ab" for number in range(40))
    assert names != sorted(names)  # they did write in turns
    assert [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]


def test_a_model_says_what_its_rows_share(tmp_path: Path) -> None:
    folder = tmp_path / "svd-0.5"
    folder.mkdir()
    (folder / "train.json").write_text('{"train_seconds": 12.5, "precision": "32-true", "epochs": 3}')
    rows.describe(folder, structure="svd", size=0.5, options=None, notakey=3)
    assert rows.of_model(folder) == {"name": "svd-0.5", "train_seconds": 12.5, "train_precision": "32-true",
                                     "structure": "svd", "size": 0.5, "options": None}
    with pytest.raises(UserError, match="the description of the model .* does not exist"):
        rows.of_model(tmp_path)


def test_files_say_what_they_cost(tmp_path: Path) -> None:
    hyp, packed, dense, info = (tmp_path / name for name in ("hyp.txt", "small.packed", "dense.packed", "info.json"))
    hyp.write_text("a-1 A\n")
    packed.write_bytes(b"12345")
    dense.write_bytes(b"1" * 20)
    info.write_text('{"rtf": 0.5, "parameters": 3, "unknown": 1}')
    Path(f"{hyp}.json").write_text('{"acoustic_scale": 1.5, "rtf": 0.01, "utts": 1}')
    row = rows.of_files(hyp, packed, dense, info)
    assert row["packed_bytes"] == 5 and row["dense_bytes"] == 20 and row["ratio"] == 4.0
    assert row["rtf"] == 0.5 and row["parameters"] == 3 and "unknown" not in row
    assert row["acoustic_scale"] == 1.5 and row["search_rtf"] == 0.01


def scored(folder: Path, search: str, hyp: str = "a-1 THE DOG", **more: object) -> str:
    """A decoding of one utterance of two words, scored into the folder of a model."""
    ref, found = folder / "ref.txt", folder / f"{search}.txt"
    folder.mkdir(parents=True, exist_ok=True)
    ref.write_text("a-1 THE CAT\n")
    found.write_text(hyp + "\n")
    row = {"name": folder.name, "test_set": "dev", "search": search, **more}
    return rows.score(ref, found, None, folder / "decode" / "dev" / search, row)


def test_a_score_is_a_row_beside_its_files(tmp_path: Path) -> None:
    assert "50.00" in scored(tmp_path / "dense", "tgsmall")
    out = tmp_path / "dense" / "decode" / "dev" / "tgsmall"
    assert json.loads((out / rows.RESULT).read_text())["wer"] == 50.0
    assert {path.name for path in out.iterdir()} == {"score.json", "align.txt", rows.RESULT}
    with pytest.raises(UserError, match="unknown key"):
        scored(tmp_path / "dense", "tglarge", moon=1)
    assert not (tmp_path / "dense" / "decode" / "dev" / "tglarge").exists()


def test_rows_of_a_model_are_collected_once(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    for search in ("greedy", "tgsmall"):
        scored(tmp_path / "exp" / "a", search)
    scored(tmp_path / "exp" / "b", "greedy")
    for name in ("a", "b", "a"):
        rows.collect(tmp_path / "exp" / name, results)
    assert [(row["name"], row["search"]) for row in result_rows.read(results)] == [
        ("a", "greedy"), ("a", "tgsmall"), ("b", "greedy")]
    written = results.stat().st_mtime_ns
    rows.collect(tmp_path / "exp" / "a", results)  # nothing new: not written
    assert results.stat().st_mtime_ns == written
    scored(tmp_path / "exp" / "a", "greedy", "a-1 THE CAT")
    rows.collect(tmp_path / "exp" / "a", results)
    assert [row["wer"] for row in result_rows.read(results)] == [0.0, 50.0, 50.0]
    (tmp_path / "exp" / "a" / "decode" / "dev" / "greedy" / rows.RESULT).write_text("{")
    with pytest.raises(UserError, match=r"result\.json is not a JSON object"):
        rows.collect(tmp_path / "exp" / "a", results)


def test_a_model_that_was_made_again_has_one_row(tmp_path: Path) -> None:
    """The size of an experiment is measured, so the row of --redo stood beside the old one."""
    results = tmp_path / "results.jsonl"
    for number, options in ((0.2471, "quantization=int8"), (0.2469, "quantization=int8,epochs=0")):
        scored(tmp_path / "int8", "greedy", size=number, options=options, seed=0)
        scored(tmp_path / "other", "greedy", size=number, seed=int(number == 0.2469))
        for name in ("int8", "other"):
            rows.collect(tmp_path / name, results)
    assert [(row["name"], row["size"], row["seed"]) for row in result_rows.read(results)] == [
        ("int8", 0.2469, 0), ("other", 0.2471, 0), ("other", 0.2469, 1)]


@pytest.mark.parametrize(("options", "search"), [
    ({}, "greedy"), ({"beam": 1}, "greedy"), ({"beam": 5}, "beam-5"),
    ({"lang": Path("lang"), "graph": Path("data/graph_phone/tgsmall/HLG.npz")}, "tgsmall")])
def test_rows_name_the_search_of_a_recogniser(options: dict, search: str, tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    assert rows.search_of(options) == search
    result = evaluate.Result(SimpleNamespace(row=lambda: {"wer": 1.0}, line=lambda: ""), {"rtf": 0.1})  # type: ignore[arg-type]
    monkeypatch.setattr(recognisers, "load", lambda model, **given: given == options)
    monkeypatch.setattr(evaluate, "evaluate", lambda *_: result)
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    assert not main(["evaluate", "m", "--data", "d", "--set", "t", "--out", str(tmp_path / "m"), "--rows",
                     str(tmp_path / "results.jsonl"), *words])
    assert [row["search"] for row in result_rows.read(tmp_path / "results.jsonl")] == [search]
