import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from asrcompress.cli import main
from asrcompress.compression import compress, packed
from asrcompress.models import build
from asrcompress.report import rows

CONFIG = {"model": "tdnn", "features": 80, "vocab": 5, "stack": [{"dim": 64, "taps": 3, "stride": 2}]}


def row(size: int, **more: Any) -> rows.Row:
    told = {"name": "int8", "model": "tdnn", "structure": "dense", "quantization": "int8", "coder": "range",
            "when": "after", "test_set": "dev", "search": "tgsmall", "packed_bytes": size, "wer": 21.5,
            "ci95": [20.0, 23.0], "ratio": 3.97, "train_set": "train-clean-5", "seed": 0, "commit": "abc123",
            "command": "./run.sh --note 'a: b'"}
    return rows.check({**told, **more}, "test")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with exp/int8/model.packed, its two rows, and a lang folder."""
    monkeypatch.chdir(tmp_path)
    small, _ = compress(build(CONFIG), quantization="int8", coder="range")
    Path("exp/int8").mkdir(parents=True)
    packed.save("exp/int8/model.packed", small)
    size = Path("exp/int8/model.packed").stat().st_size
    greedy = row(size, search="greedy", wer=None, ter=30.25, command=None)
    rows.put("results.jsonl", row(size), greedy, row(size, test_set="other", precision="float32"))
    Path("lang").mkdir()
    Path("lang/tokens.txt").write_text("<blk> 0\nA 1\n")
    return tmp_path


def release(*words: str) -> int:
    return main(["release", *words, "--rows", "results.jsonl", "--out", "released"])


def test_a_folder_holds_the_file_its_card_and_checksums(recipe: Path) -> None:
    assert release("int8", "--lang", "lang") == 0
    folder = recipe / "released" / "int8"
    assert {path.name for path in folder.iterdir()} == {"model.packed", "tokens.txt", "README.md", "SHA256SUMS"}
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    assert hashlib.sha256((folder / "model.packed").read_bytes()).hexdigest() in (folder / "SHA256SUMS").read_text()
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    said = yaml.safe_load(front)
    values = [one["metrics"][0]["value"] for one in said["model-index"][0]["results"]]
    assert said["license"] == "apache-2.0" and values == [21.5, 30.25]
    size = (folder / "model.packed").stat().st_size
    for part in (f"{size:,} bytes, 1/3.97 of the dense", "| dev | tgsmall | WER | 21.5 [20.0, 23.0] |",
                 "* trained on: train-clean-5", "./run.sh --note 'a: b'", "--lang .", f"| file |  |  |  | {size:,} |"):
        assert part in text


def test_a_release_is_the_same_twice_and_needs_no_tokens(recipe: Path) -> None:
    assert release("int8", "--license", "mit") == 0
    first = {path.name: path.read_bytes() for path in (recipe / "released" / "int8").iterdir()}
    assert release("int8", "--license", "mit") == 0
    assert first == {path.name: path.read_bytes() for path in (recipe / "released" / "int8").iterdir()}
    assert set(first) == {"model.packed", "README.md", "SHA256SUMS"} and b"--lang" not in first["README.md"]


def test_words_come_from_a_folder_for_all_models(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("lexicon.txt", "words.txt", "lm.arpa.gz"):
        Path("lang", name).write_text(name)
    assert release("int8", "--lang", "lang", "--arpa", "lang/lm.arpa.gz") == 0
    lang = recipe / "released" / "lang"
    assert {path.name for path in lang.iterdir()} == {"tokens.txt", "lexicon.txt", "words.txt", "lm.arpa.gz",
                                                      "SHA256SUMS"}
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=lang, check=True)
    text = (recipe / "released" / "int8" / "README.md").read_text()
    assert "asrcompress graph --lang ../lang --arpa ../lang/lm.arpa.gz --out ../graph" in text
    assert "asrcompress transcribe model.packed --lang ../lang --graph ../graph/HLG.npz a.wav" in text
    assert release("int8", "--arpa", "lang/lm.arpa.gz") == 1
    assert "--arpa needs --lang" in capsys.readouterr().err


@pytest.mark.parametrize("damage, said", [
    ("name", "no row tells of a packed file of the model 'int9'; the rows have int8"),
    ("file", "the packed file"), ("size", "its rows tell of"), ("content", "model.packed"), ("lang", "tokens.txt")])
def test_what_cannot_be_released_is_said(damage: str, said: str, recipe: Path,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("exp/int8/model.packed")
    if damage == "file":
        path.unlink()
    elif damage == "size":
        Path("results.jsonl").write_text(json.dumps(row(17)) + "\n")
    elif damage == "content":
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    words = ["int9" if damage == "name" else "int8", *(["--lang", "exp"] if damage == "lang" else [])]
    assert release(*words) == 1
    assert said in capsys.readouterr().err
    assert not list(recipe.glob("released/*/README.md"))
