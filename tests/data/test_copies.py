"""Speed copies of utterances whose ids look like those of copies."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, Recording, SupervisionSegment, load_manifest

from asrcompress.data.copies import origin
from asrcompress.data.prepare import store
from asrcompress.data.utterances import Utterances, cut_of
from asrcompress.lang import text
from asrcompress.lang.lexicon import Encoder

NAMES = ["tv_sports_001", "tv_sports_002", "tv_sport", "a_sp1.1", "a"]


@pytest.fixture(scope="module")
def cuts(tmp_path_factory: pytest.TempPathFactory) -> CutSet:
    """One recording of 5 s: an utterance a second, each with words of its own."""
    path = tmp_path_factory.mktemp("audio") / "show.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(5 * 16000), 16000)
    whole = Recording.from_file(path, recording_id="show").to_cut()
    return CutSet.from_cuts(
        whole.truncate(offset=i, duration=1).with_id(f"{name}-cut")
        for i, name in enumerate(NAMES)).map(_say)


def _say(cut: object) -> object:
    name = cut.id.removesuffix("-cut")
    cut.supervisions = [SupervisionSegment(name, "show", 0.0, 1.0, text=f"WORD {name.upper()}", speaker="1")]
    return cut


@pytest.fixture(scope="module")
def data(cuts: CutSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data")
    store(cuts.to_eager(), "train", out, (0.9, 1.0, 1.1), 1, print)
    return out


def encoder() -> Encoder:
    return Encoder({word: [["x"]] for word in ["WORD", *(name.upper() for name in NAMES)]}, {"x": 1})


def test_no_utterance_merges_or_vanishes(data: Path) -> None:
    assert text.read(data / "train.text") == {name: f"WORD {name.upper()}" for name in NAMES}
    stored = load_manifest(data / "train.jsonl.gz")
    assert Counter(map(origin, stored)) == dict.fromkeys(NAMES, 3)


def test_an_epoch_has_each_once_and_each_transcript_counts_once(data: Path) -> None:
    utterances = Utterances(data, ["train"], encoder())
    assert len(utterances) == 15
    for epoch in range(3):
        lines = utterances.read(utterances.one_speed_each(np.random.default_rng(epoch)))
        assert sorted(origin(cut_of(line)) for line in lines) == sorted(NAMES)
    assert sorted(utterances.texts()) == sorted(f"WORD {name.upper()}" for name in NAMES)


def test_copies_of_lhotse_itself_are_known_by_their_transforms(cuts: CutSet, tmp_path: Path) -> None:
    CutSet.from_cuts([*cuts, *cuts.perturb_speed(0.9), *cuts.perturb_speed(1.1)]).to_file(tmp_path / "cuts.jsonl.gz")
    assert Counter(map(origin, load_manifest(tmp_path / "cuts.jsonl.gz"))) == dict.fromkeys(NAMES, 3)
    assert Counter(Utterances(tmp_path, ["cuts"], encoder()).utterance.tolist()) == dict.fromkeys(range(5), 3)
