"""What each process of a training gets of sets of many sizes."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from asrcompress.data.copies import origin
from asrcompress.data.utterances import Utterances
from asrcompress.errors import UserError
from asrcompress.training import criteria
from asrcompress.training.data import SpeechData
from asrcompress.training.options import TrainingOptions
from tests.data.manifests import ENCODE, write


def parts(utterances: Utterances, world_size: int, epoch: int, skip: int = 0) -> list[SpeechData]:
    """The data of each rank."""
    found = []
    for rank in range(world_size):
        data = SpeechData(utterances, utterances.in_memory(), ENCODE, TrainingOptions(batch_seconds=40, workers=0), 0,
                          criteria.build("ctc", 8))
        data.trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank, world_size=world_size)
        data.skip = skip
        found.append(data)
    return found


def batches(utterances: Utterances, world_size: int, epoch: int, skip: int = 0) -> list[list[list[str]]]:
    """The utterances of each batch of each rank, without their features."""
    loaders = [data.train_dataloader() for data in parts(utterances, world_size, epoch, skip)]
    return [[[origin(cut) for cut in batch] for batch in loader.sampler] for loader in loaders]


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("size", [*range(1, 10), 24, 25])
def test_every_rank_has_as_many_batches_and_none_of_another(tmp_path: Path, size: int, world_size: int) -> None:
    write(tmp_path, "a", size)
    utterances = Utterances(tmp_path, ["a"], ENCODE)
    for epoch in range(3):
        ranks = batches(utterances, world_size, epoch)
        assert len({len(rank) for rank in ranks}) == 1 and all(batch for rank in ranks for batch in rank)
        said = Counter(name for rank in ranks for batch in rank for name in batch)
        assert len(said) == size, "none is lost"
        short = [step for step in zip(*ranks, strict=True) if len({name for batch in step for name in batch}) < sum(
            map(len, step))]
        assert said.total() == size or len(short) == 1
        for step in short:  # one step of too few utterances: single ones come twice
            assert said.total() == size + sum(map(len, step)) - len({name for batch in step for name in batch})
            assert all(len(batch) == 1 for batch in step)
        assert batches(utterances, world_size, epoch, skip=1) == [rank[1:] for rank in ranks]


@pytest.mark.parametrize("size", range(1, 8))
def test_held_out_cuts_are_heard_once_by_all_ranks_together(tmp_path: Path, size: int) -> None:
    write(tmp_path, "a", size)
    utterances = Utterances(tmp_path, ["a"], ENCODE)
    for world_size in (1, 2, 3):
        ranks = [[cut.id for batch in data.val_dataloader().sampler for cut in batch]
                 for data in parts(utterances, world_size, 0)]
        every = sorted(cut.id for cut in utterances)
        assert sorted(name for rank in ranks for name in rank) == every and all(ranks)


def test_fewer_held_out_cuts_than_ranks_are_heard_by_each(tmp_path: Path) -> None:
    write(tmp_path, "a", 1)
    utterances = Utterances(tmp_path, ["a"], ENCODE)
    ranks = [[cut.id for batch in data.val_dataloader().sampler for cut in batch]
             for data in parts(utterances, 5, 0)]
    assert ranks == [ranks[0]] * 5 and sorted(ranks[0]) == sorted(cut.id for cut in utterances)


@pytest.mark.parametrize(("state", "world_size", "goes"), [
    ({"skip": 3, "processes": 2}, 2, True), ({"skip": 3, "processes": 2}, 1, False),
    ({"skip": 0, "processes": 2}, 1, True), ({"skip": 3}, 2, True)])
def test_an_epoch_goes_on_only_on_as_many_processes(state: dict, world_size: int, goes: bool) -> None:
    data = SpeechData.__new__(SpeechData)
    data.trainer = SimpleNamespace(world_size=world_size)
    if goes:
        data.load_state_dict(state)
        assert data.skip == state["skip"]
    else:
        with pytest.raises(UserError, match="in the middle of an epoch on 2 processes, and 1 would divide"):
            data.load_state_dict(state)
