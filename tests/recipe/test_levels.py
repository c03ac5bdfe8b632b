"""A recogniser at several levels: files, rows, what is skipped, and what is refused."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from asrcompress.cli import main
from asrcompress.errors import UserError
from asrcompress.recipe import levels
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


@pytest.mark.parametrize("texts", [["int8"], ["a/b=x"], ["a=x", "a=y"], ["dense=x"], ["a=it's"], ["=x"], ["a="]])
def test_levels_of_another_form_get_a_sentence(texts: list[str]) -> None:
    with pytest.raises(UserError, match="level"):
        levels.parse(texts)
