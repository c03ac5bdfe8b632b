import random
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lhotse import CutSet

from asrcompress.data import batches
from asrcompress.data.batches import Batch, drawn, eval_loader, train_loader
from asrcompress.data.utterances import Utterances
from asrcompress.lang import lexicon as lexicons
from asrcompress.lang.lexicon import Encoder
from asrcompress.lang.tokens import read_symbols
from tests import prepared

AUGMENTATION = {"warp": 0.1, "noise": 0.5, "snr": [10, 30], "spec_augment": {"time_width": 10}}


@pytest.fixture(scope="module")
def encode(tiny_corpus: Path) -> Encoder:
    lang = prepared.lang(tiny_corpus)
    return Encoder(lexicons.read(lang / "lexicon.txt"), read_symbols(lang / "tokens.txt"))


@pytest.fixture(scope="module")
def utterances(tiny_corpus: Path, encode: Encoder) -> Utterances:
    return Utterances(prepared.data(tiny_corpus), ["train-quick", "dev"], encode)


@pytest.fixture(scope="module")
def cuts(utterances: Utterances) -> CutSet:
    return utterances.in_memory()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in the worker of a loader: with two threads the last bits of a sum may differ."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def epoch(utterances: Utterances, encode: Encoder, **changed: Any) -> list[Batch]:
    options = {"batch_seconds": 9, "augmentation": AUGMENTATION, "seed": 0, "epoch": 0, "workers": 0}
    return list(train_loader(utterances, encode, **options | changed))


def ids(loaded: list[Batch]) -> list[list[str]]:
    return [batch["ids"] for batch in loaded]


def same(a: list[Batch], b: list[Batch]) -> bool:
    return ids(a) == ids(b) and all(torch.equal(x["x"], y["x"]) for x, y in zip(a, b, strict=True))


def test_an_epoch_has_every_utterance_once_at_one_of_its_speeds(
    utterances: Utterances, cuts: CutSet, encode: Encoder
) -> None:
    names = {cut.id: cut.supervisions[0].id.split("_sp")[0] for cut in cuts}
    for number in range(3):
        said = [name for batch in ids(epoch(utterances, encode, epoch=number)) for name in batch]
        assert Counter(names[name] for name in said) == Counter(set(names.values()))
    speeds = {
        name.partition("_sp")[2]
        for number in range(5)
        for batch in ids(epoch(utterances, encode, epoch=number))
        for name in batch
    }
    assert speeds == {"", "0.9", "1.1"}


def test_a_share_of_an_epoch_is_another_part_of_the_speech_each_time(
    utterances: Utterances, cuts: CutSet, encode: Encoder
) -> None:
    names = {cut.id: cut.supervisions[0].id.split("_sp")[0] for cut in cuts}
    drawn = []
    for number in range(12):
        found = ids(epoch(utterances, encode, epoch=number, epoch_fraction=0.25))
        said = [names[name] for batch in found for name in batch]
        assert len(said) == len(set(said)) == round(0.25 * len(set(names.values())))
        drawn.append(set(said))
    assert drawn[0] != drawn[1]
    assert len(set().union(*drawn)) > 0.9 * len(set(names.values()))
    assert sum(len(batch) for batch in ids(epoch(utterances, encode, epoch_fraction=1e-9))) == 1


def test_a_batch_holds_the_cuts_features_and_tokens(
    utterances: Utterances, cuts: CutSet, encode: Encoder
) -> None:
    for batch in epoch(utterances, encode, augmentation=None):
        longest = max(cuts[name].duration for name in batch["ids"])
        assert len(batch["ids"]) * longest <= 9 or len(batch["ids"]) == 1
        for i, name in enumerate(batch["ids"]):
            features = torch.from_numpy(cuts[name].load_features())
            assert torch.equal(batch["x"][i, : batch["x_lens"][i]], features) and batch["x_lens"][i] == len(features)
            assert batch["targets"][i, : batch["target_lens"][i]].tolist() == encode(cuts[name].supervisions[0].text)
        assert batch["x_lens"].dtype == batch["target_lens"].dtype == torch.int64


def test_seed_and_epoch_decide_everything(utterances: Utterances, encode: Encoder) -> None:
    first = epoch(utterances, encode)
    torch.manual_seed(99)
    assert same(first, epoch(utterances, encode)) and same(first, epoch(utterances, encode, workers=1))
    for changed in ({"epoch": 1}, {"seed": 1}):
        assert ids(first) != ids(epoch(utterances, encode, **changed))
    assert not same(first, epoch(utterances, encode, augmentation=None))


def test_views_are_the_same_utterances_augmented_each_in_its_way(
    utterances: Utterances, cuts: CutSet, encode: Encoder
) -> None:
    for batch in epoch(utterances, encode, views=2):
        half = len(batch["ids"]) // 2
        assert batch["ids"][:half] == batch["ids"][half:] and not torch.equal(batch["x"][:half], batch["x"][half:])
        for name in ("clean", "x_lens", "targets", "target_lens"):
            assert torch.equal(batch[name][:half], batch[name][half:]) and len(batch[name]) == 2 * half
        assert len(batch["ids"]) * max(cuts[name].duration for name in batch["ids"]) <= 9.5 or half == 1
    said = [name for batch in epoch(utterances, encode, views=2) for name in batch["ids"]]
    assert Counter(said) == Counter(2 * [name for batch in epoch(utterances, encode) for name in batch["ids"]])


def test_clean_features_are_those_before_augmentation(utterances: Utterances, encode: Encoder) -> None:
    for batch, plain in zip(epoch(utterances, encode), epoch(utterances, encode, augmentation=None), strict=True):
        assert torch.equal(batch["clean"], plain["x"]) and not torch.equal(batch["clean"], batch["x"])


@pytest.mark.parametrize("workers", [0, 1])
def test_skip_gives_exactly_the_rest(utterances: Utterances, encode: Encoder, workers: int) -> None:
    whole = epoch(utterances, encode)
    assert len(whole) > 2
    for skip in (1, 2, len(whole)):
        assert same(epoch(utterances, encode, skip=skip, workers=workers), whole[skip:])


def test_ranks_share_an_epoch(utterances: Utterances, encode: Encoder) -> None:
    parts = [epoch(utterances, encode, rank=rank, world_size=2) for rank in range(2)]
    assert len(parts[0]) == len(parts[1])
    one, two = ([name for batch in ids(part) for name in batch] for part in parts)
    # Where the last step has one batch of one utterance, both get it.
    assert len(set(one) & set(two)) <= 1
    assert {*one, *two} == {name for batch in ids(epoch(utterances, encode)) for name in batch}


def test_evaluation_sees_every_cut_once_longest_first(cuts: CutSet, encode: Encoder) -> None:
    loaded = list(eval_loader(cuts, encode, batch_seconds=9))
    said = [name for batch in ids(loaded) for name in batch]
    assert said == [cut.id for cut in sorted(cuts, key=lambda cut: -cut.duration)] and len(loaded) > 2
    assert ids(list(eval_loader(cuts.subset(first=1), encode))) == [[cuts[0].id]]


def test_lhotse_does_not_warn_of_sets_in_memory(
    utterances: Utterances, cuts: CutSet, encode: Encoder
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        epoch(utterances, encode)
        list(eval_loader(cuts, encode))


def test_the_seconds_of_an_epoch_are_those_of_its_cuts(utterances: Utterances, cuts: CutSet, encode: Encoder) -> None:
    for fraction in (1.0, 0.5):
        said = [name for batch in ids(epoch(utterances, encode, epoch_fraction=fraction)) for name in batch]
        expected = sum(cuts[name].duration for name in said)
        assert batches.seconds_of_epoch(utterances, 0, fraction) == pytest.approx(expected)


def test_drawing_minutes_keeps_only_what_is_drawn(cuts: CutSet) -> None:
    """Against the shuffle of a list, so that figures of earlier versions can be repeated."""
    for minutes in (0.05, 0.2, 99):
        left, expected = list(cuts), []
        random.Random(3).shuffle(left)
        while left and sum(cut.duration for cut in expected) < 60 * minutes:
            expected.append(left.pop())
        assert [cut.id for cut in drawn(cuts, minutes, 3)] == [cut.id for cut in expected]


def test_seeds_are_the_same_everywhere() -> None:
    assert batches.hash_seed(0, 1, "a") == 1575865806123013661
    assert len({batches.hash_seed(seed, number) for seed in range(20) for number in range(20)}) == 400
