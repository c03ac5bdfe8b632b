"""A recogniser at several levels: files, rows, what is skipped, and what is refused."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from asrcompress.cli import main
from asrcompress.errors import UserError
from asrcompress.recipe import levels
from asrcompress.recipe.stage import Stage
from tests.recognisers import tiny

LEVELS = ("int8=quantization=int8 coder=range", "third=--target 1/3 structures=[dense] quantizations=[int8,trellis]",
          "half=--target 1/2 structures=[dense] quantizations=[int8,trellis]",
          "third-taught=--target 1/3 structures=[dense] quantizations=[int8,epr] --distil 2",
          "taught=quantization=int4 embeddings=int8 --distil 2 --distil-set dev --distil-minutes 0.1")


def sweep(stage: str, folder: Path, *more: str, chosen: tuple[str, ...] = LEVELS) -> int:
    return main(["levels", stage, f"hf:{folder}", "--data", "data", "--sets", "dev", "--command", "./run.sh", *more,
                 "--levels", *chosen])


def test_a_sweep_makes_files_and_rows_and_then_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny.whisper(tmp_path / "whisper")
    tiny.prepared(tmp_path / "data", tiny.waves([1.0, 0.6, 0.8]))
    monkeypatch.chdir(tmp_path)
    assert not sweep("compress", folder) and not sweep("decode", folder)
    lines = [line for line in capsys.readouterr().out.splitlines() if "; WER " in line]
    assert [line.split(":")[0] for line in lines] == ["dense", "int8", "third", "half", "third-taught", "taught"]
    rows = {row["name"]: row for row in map(json.loads, Path("results.jsonl").read_text().splitlines())}
    assert list(rows) == ["dense", "int8", "third", "half", "third-taught", "taught"]
    whole = Path("exp/dense/model.packed").stat().st_size
    for name, row in rows.items():
        assert row["packed_bytes"] == Path(f"exp/{name}/model.packed").stat().st_size
        assert row["dense_bytes"] == whole and row["words"] == 6 and row["wer"] is not None
    for name in ("third", "third-taught"):
        assert 0.95 * whole / 3 < rows[name]["packed_bytes"] <= whole / 3
    assert len(list(Path("exp").glob("choices-*.jsonl"))) == 2, "a table for each choice of quantizations, not of bytes"
    said = {name: (row["structure"], row["quantization"], row["coder"], row["when"]) for name, row in rows.items()}
    assert said["dense"] == ("dense", "float32", "raw", "none")
    assert said["int8"] == ("dense", "int8", "range", "after")
    assert rows["dense"]["p_better_than_dense"] is None and rows["int8"]["p_better_than_dense"] is not None
    capsys.readouterr()
    assert not sweep("device", folder, "--only", "int8")
    line = capsys.readouterr().out.splitlines()[-1]
    row = json.loads(Path("results.jsonl").read_text().splitlines()[-1])
    assert (row["name"], row["precision"], row["runtime"], row["test_set"]) == ("int8", "float32", "sherpa-onnx", "dev")
    at = Path("exp/int8/device/float32")
    assert row["device_bytes"] == sum((at / f"{name}.onnx").stat().st_size for name in ("encoder", "decoder"))
    assert line.startswith(f"int8, float32: {row['device_bytes']:,} bytes; WER dev {row['wer']:.2f} %")
    assert row["words"] == 6 and row["rtf"] > 0 and (at / "dev" / "words.txt").exists()
    made = {path: path.stat().st_mtime_ns for path in Path("exp").rglob("*") if path.is_file()}
    time.sleep(0.01)
    assert not sweep("compress", folder) and not sweep("decode", folder)
    assert not sweep("device", folder, "--only", "int8")
    kept = {path: path.stat().st_mtime_ns for path in made}
    assert kept == made
    other: tuple[Any, ...] = ("int8=quantization=int8", *LEVELS[1:])
    assert sweep("compress", folder, chosen=other) == 1
    assert "exp/int8 was made otherwise" in capsys.readouterr().err
    assert not sweep("compress", folder, "--redo", "--only", "int8", chosen=other)
    assert Path("exp/int8/model.packed").stat().st_mtime_ns != made[Path("exp/int8/model.packed")]


def test_device_files_are_searched_greedily_in_the_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("d").mkdir()
    Path("d/t.text").write_text("u A\n")
    Stage(Path("exp/dense")).run(lambda: None)
    asked: list[tuple[Any, ...]] = []

    def here(command: str, *words: Any) -> None:
        asked.append((command, *words))
        out = words[words.index("--out") + 1]
        out.mkdir(parents=True, exist_ok=True)
        (out / "hyp.txt").write_text("u A\n")
        (out / "decode.json").write_text('{"runtime": "sherpa-onnx", "rtf": 0.1, "threads": 1}')

    monkeypatch.setattr(levels.commands, "here", here)
    monkeypatch.setattr(levels, "stored", lambda path: {})
    monkeypatch.setattr(levels, "of_files", lambda *_: {"packed_bytes": 1})
    monkeypatch.setattr(levels.recognisers, "load", lambda *_, **__: SimpleNamespace(normalise=str))

    def decoded(redo: bool = False, **options: Any) -> list[tuple[Any, ...]]:
        asked.clear()
        made = levels.Sweep("m", Path("d"), ("t",), options=tuple(options.items()))
        levels.device(made, levels.Level("dense"), "float32", redo)
        return [words[-2:] for words in asked if words[0] == "decode"]

    assert decoded(language="de", beam=5) == [("--language", "de")] and decoded(language="de", beam=1) == []
    with pytest.raises(UserError, match="--language de -> "):
        decoded(language="en")
    assert decoded(redo=True, language="en") == [("--out", Path("exp/dense/device/float32/t"))] and decoded() == []
    assert [json.loads(line)["search"] for line in Path("results.jsonl").read_text().splitlines()] == ["greedy"]


@pytest.mark.parametrize(("words", "stale"), [
    ("quantization=int8", ["hf/model.safetensors"]), ("--target 1/3", ["hf/model.safetensors", "d/dev.text"]),
    ("--target 1/3 --data-free gaussian", ["hf/model.safetensors"]),
    ("--distil 2 --calibrate-set a --distil-set b", ["hf/model.safetensors", "d/a.text", "d/b.text"])])
def test_a_file_follows_from_weights_and_speech(words: str, stale: list[str], tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(levels.commands, "here", lambda *_: None)
    inputs = [Path(path) for path in ("hf/model.safetensors", "d/dev.text", "d/a.text", "d/b.text")]
    for path in inputs:
        path.parent.mkdir(exist_ok=True)
        path.write_text("u A\n")
    made, (_, level) = levels.Sweep("hf:hf", Path("d"), ("t",)), levels.parse([f"a={words}"])
    levels.compress(made, level)
    for number, path in enumerate(inputs):
        path.write_text("u B\n" * (number + 2))
        if str(path) in stale:
            with pytest.raises(UserError, match=f"{path.name} has changed"):
                levels.compress(made, level)
        levels.compress(made, level, redo=True)


def test_a_level_has_one_row_a_search_and_that_may_be_a_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("d/t.text", "tgsmall/HLG.npz"):
        Path(path).parent.mkdir()
        Path(path).write_text("u A\n")
    Stage(Path("exp/dense")).run(lambda: Path("exp/dense/model.packed").touch())
    monkeypatch.setattr(levels, "stored", lambda path: {})
    monkeypatch.setattr(levels, "of_files", lambda *_: {"packed_bytes": 1, "ratio": 1.0})
    monkeypatch.setattr(levels.recognisers, "load", lambda *_, **__: None)
    said = {"wer": 1.0, "ci95": None}
    monkeypatch.setattr(levels, "evaluate", lambda *_: SimpleNamespace(facts={}, score=SimpleNamespace(row=said.copy)))
    for words, scale in ((("x",), 1.0), (("y",), 2.0)):
        options = (("lang", Path("lang")), ("graph", Path("tgsmall/HLG.npz")), ("acoustic_scale", scale))
        levels.decode(levels.Sweep("m", Path("d"), ("t",), options=options), levels.Level("dense", words), redo=True)
    (row,) = map(json.loads, Path("results.jsonl").read_text().splitlines())
    assert (row["search"], row["options"]) == ("tgsmall", "y")


def test_blanks_around_levels_and_names_are_left_out() -> None:
    assert levels.parse(["a=x y", " b = z", "\nc=--target 1/8\n", " \n"])[1:] == [
        levels.Level("a", ("x", "y")), levels.Level("b", ("z",)), levels.Level("c", ("--target", "1/8"))]


@pytest.mark.parametrize("texts", [["int8"], ["a/b=x"], ["a=x", "a=y"], ["dense=x"], ["a=it's"], ["=x"], ["a="]])
def test_levels_of_another_form_get_a_sentence(texts: list[str]) -> None:
    with pytest.raises(UserError, match="level"):
        levels.parse(texts)
