"""Test sets in parts."""

import json
from pathlib import Path

import pytest
from lhotse import CutSet, MonoCut, SupervisionSegment, load_manifest

from asrcompress.errors import UserError
from asrcompress.lang import text
from asrcompress.recipe import parts

TEXTS = {f"u-{i}": f"WORD {i}" for i in range(7)}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prepared set of seven utterances in the current folder."""
    monkeypatch.chdir(tmp_path)
    cuts = [MonoCut(f"cut-{name}", 0, 1, 0, supervisions=[SupervisionSegment(name, "r", 0, 1, text=words)])
            for name, words in TEXTS.items()]
    Path("data").mkdir()
    CutSet.from_cuts(cuts).to_file("data/dev.jsonl.gz")
    text.write(Path("data/dev.text"), TEXTS)


@pytest.mark.parametrize("number", [2, 3, 7])
def test_every_utterance_is_in_one_part(number: int) -> None:
    names = [parts.split("dev", part, number) for part in parts.numbers(number)]
    assert len(set(names)) == number and list(parts.numbers(1)) == []
    found = [cut.supervisions[0].id for name in names for cut in load_manifest(f"data/{name}.jsonl.gz")]
    assert sorted(found) == sorted(TEXTS)
    assert {key: words for name in names for key, words in text.read(f"data/{name}.text").items()} == TEXTS
    assert all(set(text.read(f"data/{name}.text")) == {cut.supervisions[0].id for cut in load_manifest(
        f"data/{name}.jsonl.gz")} for name in names)


def test_a_part_is_made_again_only_with_its_set() -> None:
    made = Path("data", parts.split("dev", 1, 2) + ".jsonl.gz")
    before = made.stat().st_mtime_ns
    parts.split("dev", 1, 2)
    assert made.stat().st_mtime_ns == before
    CutSet.from_cuts(list(load_manifest("data/dev.jsonl.gz"))[:4]).to_file("data/dev.jsonl.gz")
    parts.split("dev", 1, 2)
    assert len(list(load_manifest(made))) == 2


def test_parts_are_joined_into_what_one_search_would_write() -> None:
    at = Path("decode")
    for part, rtf in ((1, 0.1), (2, 0.3)):
        mine = dict(list(TEXTS.items())[part - 1::2])
        text.write(at / "parts" / parts.name(part, 2) / "tgsmall" / "hyp.txt", mine)
        report = at / "parts" / parts.name(part, 2) / "tgsmall" / "hyp.txt.json"
        report.write_text(json.dumps({"rtf": rtf, "acoustic_scale": 1.5}))
    parts.join(at, "tgsmall", 2)
    assert text.read(at / "tgsmall" / "hyp.txt") == TEXTS
    assert json.loads((at / "tgsmall" / "hyp.txt.json").read_text()) == {"rtf": 0.2, "acoustic_scale": 1.5}
    (at / "parts" / "2of2" / "tgsmall" / "hyp.txt").unlink()
    with pytest.raises(UserError, match="the part of a decoding .*2of2.* does not exist"):
        parts.join(at, "tgsmall", 2)
