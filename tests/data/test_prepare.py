import shutil
from collections import Counter
from pathlib import Path

import pytest
from lhotse import CutSet, load_manifest

from asrcompress.data import prepare as module
from asrcompress.data.copies import origin
from asrcompress.data.corpora import librispeech
from asrcompress.data.prepare import hold_out, prepare
from asrcompress.errors import UserError
from asrcompress.lang import text
from tests import prepared


def speakers(cuts: CutSet) -> set[str]:
    return {cut.supervisions[0].speaker for cut in cuts}


def test_every_utterance_is_there_at_every_speed_and_speakers_are_disjoint(tiny_corpus: Path) -> None:
    data = prepared.data(tiny_corpus)
    train, dev, test = (load_manifest(data / f"{name}.jsonl.gz") for name in ("train-quick", "dev", "dev-quick"))
    assert len(speakers(train)) == len(speakers(dev)) == 1 and not speakers(train) & speakers(dev)
    copies = Counter(cut.supervisions[0].id.split("_sp")[0] for cut in train)
    assert set(copies.values()) == {3}
    assert all(
        f"{name}{suffix}" in {cut.supervisions[0].id for cut in train}
        for name in copies
        for suffix in ("", "_sp0.9", "_sp1.1")
    )
    originals = {
        cut.supervisions[0].id: cut.supervisions[0].text for cut in librispeech.prepare(tiny_corpus, "train-quick")
    }
    assert set(copies) | {cut.supervisions[0].id for cut in dev} == set(originals)
    assert text.read(data / "train-quick.text") | text.read(data / "dev.text") == originals
    assert set(text.read(data / "train-quick.text")) == set(copies)
    assert set(text.read(data / "dev-quick.text")) == {cut.supervisions[0].id for cut in test}


def test_what_is_there_is_kept_and_what_is_missing_is_made(tiny_corpus: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(prepared.data(tiny_corpus), tmp_path / "data"))
    (data / "dev-quick.jsonl.gz").unlink()
    before = {path: path.stat().st_mtime_ns for path in data.glob("*.jsonl.gz")}
    asked = []

    def read(corpus: Path, name: str) -> CutSet:
        asked.append(name)
        return librispeech.prepare(corpus, name)

    for _ in range(2):
        prepare(read, tiny_corpus, ["train-quick"], ["dev-quick"], data, held_out_minutes=0.1)
    assert asked == ["dev-quick"] and (data / "dev-quick.jsonl.gz").exists()
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_speeds_of_a_training_utterance_are_neighbours_and_utterances_are_shuffled(
    tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ARCHIVE", 9)
    cuts = librispeech.prepare(tiny_corpus, "train-quick")
    for shuffle in (False, True):
        module.store(cuts, "set", tmp_path, (0.9, 1.0, 1.1), 2, print, shuffle)
        stored = list(load_manifest(tmp_path / "set.jsonl.gz"))
        parts = [stored[start:start + 9] for start in range(0, len(stored), 9)]
        said = [origin(cut) for part in parts for cut in part[:len(part) // 3]]
        names = [cut.supervisions[0].id for cut in cuts]
        assert (said == names) != shuffle and sorted(said) == sorted(names)
        for part in parts:
            assert len({cut.features.storage_path for cut in part}) == 1
            assert set(Counter(origin(cut) for cut in part).values()) == {3}
            offsets = [int(cut.features.storage_key.split(",")[0]) for cut in part]
            assert offsets == sorted(offsets)  # an archive is read in the order of the manifest
        assert all(cut.load_features().shape == (cut.num_frames, 80) for cut in stored)


def test_a_set_that_fails_leaves_no_manifest(
    tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.features, "extract", lambda *_, **__: iter(()))
    with pytest.raises(UserError, match="no utterance of dev-quick has audio"):
        prepare(librispeech.prepare, tiny_corpus, [], ["dev-quick"], tmp_path)
    assert not list(tmp_path.glob("*.jsonl.gz")) and not list(tmp_path.glob(".*"))


def test_hold_out_takes_whole_speakers_until_the_minutes_are_there(tiny_corpus: Path) -> None:
    cuts = librispeech.prepare(tiny_corpus, "train-quick")
    train, held = hold_out(cuts, 0.01)
    assert speakers(train) | speakers(held) == {"101", "102"} and len(speakers(held)) == 1
    assert speakers(hold_out(CutSet.from_cuts(reversed(list(cuts))), 0.01)[1]) == speakers(held)
    assert len({frozenset(speakers(hold_out(cuts, 0.01, seed)[1])) for seed in range(8)}) == 2
    for minutes, sentence in ((60, "would take all 2 speakers"), (0, "no development set")):
        with pytest.raises(UserError, match=sentence):
            hold_out(cuts, minutes)


def test_held_out_speakers_are_in_no_training_set(tiny_corpus: Path, tmp_path: Path) -> None:
    def read(corpus: Path, name: str) -> CutSet:  # the same speakers in both
        return librispeech.prepare(corpus, "train-quick")

    prepare(read, tiny_corpus, ["one", "two"], [], tmp_path, speeds=(1.0,), held_out_minutes=0.1)
    one, two, dev = (speakers(load_manifest(tmp_path / f"{name}.jsonl.gz")) for name in ("one", "two", "dev"))
    assert one == two and one and dev and not one & dev


def test_nothing_is_held_out_of_a_test_set(tiny_corpus: Path, tmp_path: Path) -> None:
    prepare(librispeech.prepare, tiny_corpus, [], ["dev-quick"], tmp_path)
    assert [path.name for path in tmp_path.glob("*.jsonl.gz")] == ["dev-quick.jsonl.gz"]
    assert text.read(tmp_path / "dev-quick.text") == text.read(prepared.data(tiny_corpus) / "dev-quick.text")


@pytest.mark.parametrize(("train", "test", "said"), [
    (["train-quick"], ["dev"], "a set of the corpus cannot be called dev"),
    (["dev"], ["dev-quick"], "a set of the corpus cannot be called dev"),
    (["train-quick"], ["train-quick"], "train-quick is among --train-sets and among --test-sets"),
    (["train-quick", "dev-quick"], [], "dev-quick.jsonl.gz has one speed, and a training set has speed copies; remove"),
    ([], ["train-quick"], "train-quick.jsonl.gz has speed copies, and a test set has one speed; remove")])
def test_a_set_has_one_role(tiny_corpus: Path, train: list[str], test: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        prepare(librispeech.prepare, tiny_corpus, train, test, prepared.data(tiny_corpus), held_out_minutes=0.1)
