"""Stages: what is skipped, what stops and what is made again."""

import json
from pathlib import Path

import pytest

from asrcompress.errors import UserError
from asrcompress.recipe.stage import Stage


def run(folder: Path, redo: bool = False, **options: object) -> bool:
    """A stage that writes how often it was made."""
    def make() -> None:
        path = folder / "made"
        path.write_text(str(int(path.read_text()) + 1 if path.exists() else 1))

    return Stage(folder, {f"--{key}": value for key, value in options.items()}).run(make, redo)


def test_the_same_options_are_skipped(tmp_path: Path) -> None:
    assert run(tmp_path, epochs=8, methods=("svd", "cp"))
    assert not run(tmp_path, epochs=8, methods=("svd", "cp"))
    assert (tmp_path / "made").read_text() == "1"
    marker = json.loads((tmp_path / ".done").read_text())
    assert marker["options"] == {"--epochs": 8, "--methods": ["svd", "cp"]} and not (tmp_path / ".started").exists()


def test_other_options_stop_and_say_what_changed(tmp_path: Path) -> None:
    run(tmp_path, epochs=1, density=0.1, unit="phone")
    with pytest.raises(UserError, match=r"--epochs 1 -> 24; --density 0.1 -> 0.05\. --redo makes it again"):
        run(tmp_path, epochs=24, density=0.05, unit="phone")
    assert (tmp_path / "made").read_text() == "1" and not run(tmp_path, epochs=1, density=0.1, unit="phone")


def test_redo_begins_with_an_empty_folder(tmp_path: Path) -> None:
    run(tmp_path, epochs=8)
    (tmp_path / "checkpoints").mkdir()
    assert run(tmp_path, redo=True, epochs=24)
    assert (tmp_path / "made").read_text() == "1" and not (tmp_path / "checkpoints").exists()
    assert not run(tmp_path, redo=True, epochs=24)  # --redo makes again what differs, and nothing else


def test_a_stage_that_was_cut_off_goes_on_and_only_with_its_options(tmp_path: Path) -> None:
    def dies() -> None:
        (tmp_path / "made").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Stage(tmp_path, {"--epochs": 8}).run(dies)
    assert not (tmp_path / ".done").exists()
    with pytest.raises(UserError, match="--epochs 8 -> 9"):
        Stage(tmp_path, {"--epochs": 9}).run(lambda: None)
    assert Stage(tmp_path, {"--epochs": 8}).run(lambda: None)
    assert (tmp_path / "made").read_text() == "half" and (tmp_path / ".done").exists()


@pytest.mark.parametrize("options", [
    {"--finetune-options": ["training.epochs=2", "criterion.teacher=[a.packed,b.packed]"]},
    {"--methods": ("svd", "budget.weights=b.packed")}, {"--model": "b.packed"},
], ids=["list", "word", "value"])
def test_files_that_options_name_count_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                  options: dict) -> None:
    """Another teacher under the same name was taken for the same one."""
    monkeypatch.chdir(tmp_path)
    for file in ("a.packed", "b.packed"):
        Path(file).write_text("1")
    again = Stage(Path("out"), {**options, "--note": "x" * 5000})
    assert again.run(lambda: None) and not again.run(lambda: None)
    Path("b.packed").write_text("22")
    with pytest.raises(UserError, match=r"out was made otherwise: b\.packed has changed"):
        again.run(lambda: None)


def test_inputs_count_by_content_and_by_the_marker_of_the_stage_that_made_them(tmp_path: Path) -> None:
    text, first, second = tmp_path / "text", tmp_path / "first", tmp_path / "second"
    text.write_text("a b")

    def both(epochs: int, redo: bool = False) -> list[bool]:
        return [Stage(first, {"--epochs": epochs}, {"the text": text}).run(lambda: None, redo),
                Stage(second, {}, {"the dense model": first}).run(lambda: None, redo)]

    assert both(8) == [True, True] and both(8) == [False, False]
    text.write_text("a b c")
    with pytest.raises(UserError, match="first was made otherwise: the text has changed"):
        both(8)
    Stage(first, {"--epochs": 8}, {"the text": text}).run(lambda: None, redo=True)
    with pytest.raises(UserError, match="second was made otherwise: the dense model has changed"):
        both(8)
    assert both(9, redo=True) == [True, True]


def test_an_input_that_is_not_finished_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "dense").mkdir()
    with pytest.raises(UserError, match="dense is not finished; run the stage that makes it first"):
        Stage(tmp_path / "small", {}, {"the dense model": tmp_path / "dense"}).run(lambda: None)
    with pytest.raises(UserError, match="none does not exist"):
        Stage(tmp_path / "small", {}, {"the text": tmp_path / "none"}).run(lambda: None)


@pytest.mark.parametrize("content", ["", "[]", '{"digest": 1}'])
def test_a_marker_without_a_fingerprint_is_not_trusted(tmp_path: Path, content: str) -> None:
    (tmp_path / ".done").write_text(content)
    with pytest.raises(UserError, match="its marker does not say with which options"):
        run(tmp_path, epochs=8)
    assert run(tmp_path, redo=True, epochs=8) and not run(tmp_path, epochs=8)
