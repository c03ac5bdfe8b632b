"""Stage 8: what a recipe asks of an export."""

from pathlib import Path
from typing import Any

import pytest

from asrcompress.data import corpora
from asrcompress.recipe import commands, decoding, device
from asrcompress.recipe.settings import Settings


@pytest.mark.parametrize(("precision", "saturates", "expected"), [
    ("int8-dynamic", True, True), ("int8-static", True, True), ("int8-dynamic", False, False),
    ("float32", True, False), ("int4", True, False)])
def test_int8_files_have_weights_of_7_bits_where_sums_saturate(precision: str, saturates: bool, expected: bool,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(commands, "here", lambda *words: asked.append(words))
    monkeypatch.setattr(device.machine, "int8_saturates", lambda: saturates)
    monkeypatch.setattr(decoding, "scales", lambda name: {"acoustic_scale": 1.0})
    monkeypatch.setattr(device.data, "first_graph", lambda settings: device.EXP)
    device._export(Settings(train_sets=("train",)), ("dense", precision))
    export = next(words for words in asked if words[0] == "export")
    assert ("--reduce-range" in export) == expected


def test_the_search_of_a_device_file_has_the_states_of_the_recipe(monkeypatch: pytest.MonkeyPatch,
                                                                  tmp_path: Path) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(commands, "here", lambda *words: asked.append(words))
    monkeypatch.setattr(device.data, "searches", lambda settings: [corpora.Search("tgsmall", tmp_path)])
    monkeypatch.setattr(decoding, "search_with", lambda *words: None)
    monkeypatch.setattr(device, "_record", lambda *words: None)
    monkeypatch.setattr(device, "EXP", tmp_path)
    at = tmp_path / "dense" / "device" / "float32" / "decode" / "test"
    at.mkdir(parents=True)
    (at / "posteriors").touch()
    device._decode(Settings(train_sets=("train",), max_active=700), ("dense", "float32"), "test")
    over_graph, = [words for words in asked if "--graph" in words]
    assert over_graph[over_graph.index("--max-active") + 1] == 700
