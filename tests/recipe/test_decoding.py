"""Decoding of a recipe's models, with commands that only say what they were asked."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lhotse import CutSet, MonoCut, SupervisionSegment

from asrcompress.errors import UserError
from asrcompress.lang import text
from asrcompress.recipe import commands, decoding, graph
from asrcompress.recipe.settings import Settings
from asrcompress.recipe.stage import Stage

Asked = list[tuple[str, list[str]]]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Those of a corpus with a small and a large language model, in a folder with a dense model and the set t."""
    monkeypatch.chdir(tmp_path)
    Path("corpus/lm").mkdir(parents=True)
    for name in ("3-gram.pruned.3e-7.arpa.gz", "3-gram.arpa.gz"):
        Path("corpus/lm", name).touch()
    made = Settings(corpus=Path("corpus"), test_sets=("t",), searches=("greedy", "tgsmall", "tglarge"))
    for folder in (made.graph("tgsmall"), made.graph("tglarge"), decoding.DENSE):
        Stage(folder).run(lambda: None)
    (decoding.DENSE / "info.json").touch()
    prepare_sets(["u0", "u1", "u2"])
    return made


def prepare_sets(names: list[str]) -> None:
    """data/t and data/dev with these utterances."""
    for name in ("t", "dev"):
        cuts = [MonoCut(one, 0, 1, 0, supervisions=[SupervisionSegment(one, "r", 0, 1, text=one)]) for one in names]
        CutSet.from_cuts(cuts).to_file(f"data/{name}.jsonl.gz")
        text.write(Path(f"data/{name}.text"), dict.fromkeys(names, "A"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What was asked of commands; a search says the words of its archive, and scales and scores are not looked at."""
    found: Asked = []

    def here(command: str, *words: Any) -> None:
        found.append((command, [str(word) for word in words]))
        given = dict(zip(words[::2], words[1::2], strict=True))
        if command == "posteriors":
            text.write(given["--out"], text.read(given["--data"] / f"{given['--set']}.text"))
        if command == "greedy":
            text.write(given["--out"] / "hyp.txt", text.read(given["--archive"]))

    def run_search(settings: Settings, search: Any, archive: Path, *more: Any, **options: Any) -> None:
        found.append(("search", [search.name]))

    def choose(sweep: Path, out: Path) -> None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text('{"acoustic_scale": 1, "blank_penalty": 0, "lm_scale": 1}')

    monkeypatch.setattr(commands, "here", here)
    for name, what in {"run_search": run_search, "_choose": choose, "record": lambda *_: None}.items():
        monkeypatch.setattr(decoding, name, what)
    return found


def test_another_scale_of_a_language_model_is_noticed_by_a_sweep(settings: Settings, asked: Asked) -> None:
    task, other = graph.Task("decode", "dense"), replace(settings, lm_scales=(0.5, 2.0))
    decoding.decode(settings, "dense")
    assert task.done(settings)
    with pytest.raises(UserError, match="tglarge was made otherwise: --lm-scales"):
        task.done(other)
    assert not task.done(replace(other, redo=True))
    decoding.decode(replace(other, redo=True), "dense")
    assert task.done(other)


def test_posteriors_of_a_decoding_that_was_cut_off_are_taken_for_the_same_set_only(
        settings: Settings, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(settings, searches=("greedy", "tgsmall"))
    whole = decoding.run_search

    def cut_off(settings: Settings, search: Any, archive: Path, *more: Any, **options: Any) -> None:
        if "dev" not in archive.parts:
            raise UserError("cut off")
        whole(settings, search, archive, *more)

    def posteriors(settings: Settings, run_search: Callable[..., None]) -> list[str]:
        asked.clear()
        monkeypatch.setattr(decoding, "run_search", run_search)
        try:
            decoding.decode(settings, "dense")
        except UserError as error:
            assert str(error) == "cut off"
        return [words[words.index("--set") + 1] for command, words in asked if command == "posteriors"]

    assert posteriors(settings, cut_off) == ["dev", "t"] and posteriors(settings, cut_off) == []
    prepare_sets(["v0", "v1"])
    assert posteriors(replace(settings, redo=True), whole) == ["dev", "t"]
    at = decoding.DENSE / "decode" / "t"
    assert set(text.read(at / "greedy" / "hyp.txt")) == {"v0", "v1"} and not (at / "network").exists()


@pytest.mark.parametrize(("utterances", "parts"), [(3, 4), (3, 3), (3, 2), (1, 2)])
def test_no_part_of_a_set_is_empty(settings: Settings, asked: Asked, utterances: int, parts: int) -> None:
    names = [f"u{number}" for number in range(utterances)]
    prepare_sets(names)
    settings = replace(settings, searches=("greedy",), decode_parts=parts)
    for part in range(1, parts + 1):
        decoding.decode_part(settings, "dense", part)
    sets = [words[words.index("--set") + 1] for command, words in asked if command == "posteriors"]
    assert len(sets) == min(utterances, parts) and all(text.read(Path(f"data/{name}.text")) for name in sets)
    decoding.decode(settings, "dense")
    assert sorted(text.read(decoding.DENSE / "decode" / "t" / "greedy" / "hyp.txt")) == names
