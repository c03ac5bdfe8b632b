"""Batches of streamed sets, against what any sampler of utterances must do."""

import gc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from lhotse import MonoCut

from asrcompress.data import sampler
from asrcompress.data.copies import origin
from asrcompress.data.sampler import BucketSampler
from asrcompress.data.utterances import Utterances
from tests.data.manifests import ENCODE, write

SECONDS = 60


@pytest.fixture(scope="module")
def utterances(tmp_path_factory: pytest.TempPathFactory) -> Utterances:
    folder = tmp_path_factory.mktemp("sets")
    write(folder, "a", 400)
    write(folder, "b", 200)
    return Utterances(folder, ["a", "b"], ENCODE)


@pytest.fixture(params=[20_000, 50])
def window(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """All in one window, and many windows."""
    monkeypatch.setattr(sampler, "WINDOW", request.param)
    return request.param


def ids(batches: BucketSampler) -> list[list[str]]:
    return [[cut.id for cut in batch] for batch in batches]


@pytest.mark.parametrize("fraction", [1.0, 0.3])
def test_every_utterance_comes_once_in_batches_of_like_duration(
    utterances: Utterances, window: int, fraction: float
) -> None:
    found = list(BucketSampler(utterances, SECONDS, 3, fraction))
    said = Counter(origin(cut) for batch in found for cut in batch)
    assert set(said.values()) == {1} and len(said) == round(600 * fraction)
    padded = sum(len(batch) * max(cut.duration for cut in batch) for batch in found)
    assert all(len(batch) * max(cut.duration for cut in batch) <= SECONDS for batch in found)
    assert padded < 1.3 * sum(cut.duration for batch in found for cut in batch)
    chosen = utterances.one_speed_each(np.random.default_rng(3), fraction)
    every = [cut.id for cut in utterances]
    assert {cut.id for batch in found for cut in batch} == {every[number] for number in chosen}


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_ranks_have_parts_of_as_many_batches(utterances: Utterances, window: int, world_size: int) -> None:
    parts = [ids(BucketSampler(utterances, SECONDS, 0, 1.0, rank, world_size)) for rank in range(world_size)]
    assert len({len(part) for part in parts}) == 1
    said = Counter(name for part in parts for batch in part for name in batch)
    assert len(said) == 600 and said.total() - len(said) < world_size  # of the last step alone
    durations = {cut.id: cut.duration for cut in utterances}
    steps = [[max(durations[name] for name in batch) for batch in step] for step in zip(*parts, strict=True)]
    assert np.mean([max(step) - min(step) for step in steps[:-1]]) < (2 if window > 50 else 15)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_ranks_without_work_repeat_an_utterance(tmp_path: Path, count: int) -> None:
    write(tmp_path, "a", count)
    few = Utterances(tmp_path, ["a"], ENCODE)
    parts = [ids(BucketSampler(few, SECONDS, 0, 1.0, rank, 4)) for rank in range(4)]
    assert [len(part) for part in parts] == [len(parts[0])] * 4
    assert len({name for part in parts for batch in part for name in batch}) == count


def test_the_seed_decides_and_epochs_differ(utterances: Utterances, window: int) -> None:
    first = ids(BucketSampler(utterances, SECONDS, 0))
    assert first == ids(BucketSampler(utterances, SECONDS, 0))
    again = BucketSampler(utterances, SECONDS, 1)
    assert ids(again) == ids(again) != first
    together = [{frozenset(name.split("_")[0] for name in batch) for batch in found} for found in (first, ids(again))]
    assert len(together[0] & together[1]) < 0.2 * len(first)


def test_sets_are_mixed_and_each_is_read_in_its_order(utterances: Utterances) -> None:
    numbers = utterances.one_speed_each(np.random.default_rng(0))
    stream = sampler.interleaved(numbers, utterances.source, np.random.default_rng(0))
    assert sorted(stream) == numbers.tolist()
    for source in (0, 1):
        assert (np.diff(stream[utterances.source[stream] == source]) > 0).all()
    share = [np.mean(utterances.source[part]) for part in np.split(stream, 6)]
    assert all(0.15 < part < 0.55 for part in share)  # a third, give or take


def test_no_more_cuts_are_alive_than_a_batch_has(utterances: Utterances, monkeypatch: pytest.MonkeyPatch,
                                                 request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(sampler, "WINDOW", 100)
    gc.collect()
    gc.freeze()  # all that is there already, which `alive` need not look through
    request.addfinalizer(gc.unfreeze)
    most, lines = 0, 0
    iterator = iter(BucketSampler(utterances, SECONDS, 0))
    for batch in iterator:
        most = max(most, alive(MonoCut) - len(batch))
        lines = max(lines, len(iterator.gi_frame.f_locals["held"]))  # type: ignore[attr-defined]
    assert most <= 60  # the batch before, until it is replaced
    assert 0 < lines <= 200


def alive(kind: type) -> int:
    """How many objects of a class there are; `isinstance` would ask a proxy of what is gone."""
    return sum(type(found) is kind for found in gc.get_objects())
