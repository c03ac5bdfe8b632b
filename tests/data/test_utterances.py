"""Sets that are streamed, against the same sets in memory."""

import gc
import gzip
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from lhotse import MonoCut, load_manifest

from asrcompress.data.copies import origin
from asrcompress.data.utterances import Targets, Utterances, cut_of, load_cuts
from asrcompress.errors import UserError
from asrcompress.lang import lexicon as lexicons
from asrcompress.lang.lexicon import Encoder
from tests import prepared
from tests.data.manifests import ENCODE, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets, one of them speed after speed as sets were once prepared."""
    out = tmp_path_factory.mktemp("sets")
    write(out, "a", 300)
    write(out, "b", 200, part=200)
    return out


@pytest.fixture(scope="module")
def utterances(folder: Path) -> Utterances:
    return Utterances(folder, ["a", "b"], ENCODE)


def test_numbers_say_what_the_cuts_are(folder: Path, utterances: Utterances) -> None:
    cuts = [*load_manifest(folder / "a.jsonl.gz"), *load_manifest(folder / "b.jsonl.gz")]
    assert [cut.id for cut in utterances] == [cut.id for cut in cuts] and len(utterances) == len(cuts) == 1500
    assert utterances.durations.tolist() == [cut.duration for cut in cuts]
    names: dict[str, int] = {}
    assert utterances.utterance.tolist() == [names.setdefault(origin(cut), len(names)) for cut in cuts]
    assert Counter(utterances.source.tolist()) == {0: 900, 1: 600}


def test_lines_are_read_in_the_order_that_is_asked_for(folder: Path, utterances: Utterances) -> None:
    ids = [cut.id for cut in utterances]
    numbers = np.array([7, 900, 8, 13, 1400, 899])
    assert [cut_of(line).id for line in utterances.read(numbers)] == [ids[number] for number in numbers]


def test_an_epoch_has_one_copy_of_each_and_a_third_of_each_speed(utterances: Utterances) -> None:
    drawn = [utterances.one_speed_each(np.random.default_rng(epoch)) for epoch in range(30)]
    for numbers in drawn:
        assert sorted(utterances.utterance[numbers]) == list(range(500)) and (np.diff(numbers) > 0).all()
    factor = np.array([cut.id.partition("_sp")[2] or "1" for cut in utterances])
    counts = Counter(factor[np.concatenate(drawn)])
    assert len(counts) == 3 and all(abs(count / 15_000 - 1 / 3) < 0.02 for count in counts.values())
    assert not np.array_equal(drawn[0], drawn[1])
    assert np.array_equal(drawn[0], utterances.one_speed_each(np.random.default_rng(0)))


@pytest.mark.parametrize("fraction", [0.5, 0.01, 1e-9])
def test_a_share_of_an_epoch_is_drawn_without_repetition(utterances: Utterances, fraction: float) -> None:
    numbers = utterances.one_speed_each(np.random.default_rng(0), fraction)
    assert len(set(utterances.utterance[numbers])) == len(numbers) == max(1, round(500 * fraction))


def test_texts_come_once_for_each_utterance_and_again(folder: Path, utterances: Utterances) -> None:
    expected = {origin(cut): cut.supervisions[0].text for cut in utterances}
    assert Counter(utterances.texts()) == Counter(expected.values())
    targets = Targets(utterances, ENCODE)
    assert list(targets) == list(targets) == [ENCODE(text) for text in utterances.texts()]


def test_only_what_is_asked_for_becomes_a_cut(utterances: Utterances) -> None:
    gc.collect()
    before = sum(type(found) is MonoCut for found in gc.get_objects())
    for _ in utterances:
        pass
    stream = iter(utterances)
    next(stream)
    assert sum(type(found) is MonoCut for found in gc.get_objects()) - before <= 1


def test_words_outside_the_lexicon_and_long_cuts_are_left_out_and_counted(
    tiny_corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, names = prepared.data(tiny_corpus), ["train-quick", "dev"]
    _, encode = lexicons.of_lang(prepared.lang(tiny_corpus))
    cuts = load_cuts(data, names, encode)
    word = cuts[0].supervisions[0].text.split()[0]
    poorer = Encoder({}, {})
    poorer.ids = {other: tokens for other, tokens in encode.ids.items() if other != word}
    limit = sorted(cut.duration for cut in cuts)[len(cuts) // 2]
    capsys.readouterr()
    kept = Utterances(data, names, poorer, limit)
    without = [cut for cut in cuts if word not in cut.supervisions[0].text.split()]
    expected = [cut for cut in without if cut.duration <= limit]
    assert [cut.id for cut in kept] == [cut.id for cut in expected]
    assert set(kept.utterance) == set(range(len({origin(cut) for cut in expected})))
    message = capsys.readouterr().out
    assert f"of {len(cuts)} cuts {len(cuts) - len(without)} have words outside the lexicon" in message
    assert f"and {len(without) - len(kept)} are longer than {limit} s" in message
    with pytest.raises(UserError, match="no cut of dev .* can be used"):
        load_cuts(data, ["dev"], Encoder({}, {}))
    with pytest.raises(UserError, match="the prepared set .*other.jsonl.gz does not exist"):
        load_cuts(data, ["other"], encode)


def test_one_set_named_twice_is_a_sentence(folder: Path) -> None:
    with pytest.raises(UserError, match="utterance a-000000 of .*a.jsonl.gz comes twice in b a a"):
        Utterances(folder, ["b", "a", "a"], ENCODE)


def test_a_manifest_that_is_written_anew_is_not_read_on(tmp_path: Path) -> None:
    write(tmp_path, "a", 20)
    utterances = Utterances(tmp_path, ["a"], ENCODE)
    list(utterances)
    os.utime(tmp_path / "a.jsonl.gz", (0, 0))
    with pytest.raises(UserError, match="a.jsonl.gz was written anew while"):
        list(utterances)


@pytest.mark.parametrize("content", [b"no JSON\n", b'{"id": "a"}\n', b"[]\n"])
def test_a_manifest_that_is_none_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    with gzip.open(tmp_path / "a.jsonl.gz", "wb") as stream:
        stream.write(content)
    with pytest.raises(UserError, match="a.jsonl.gz, line 1"):
        Utterances(tmp_path, ["a"], ENCODE)
    (tmp_path / "a.jsonl.gz").write_bytes(json.dumps({}).encode())
    with pytest.raises(UserError, match="a.jsonl.gz"):
        Utterances(tmp_path, ["a"], ENCODE)
