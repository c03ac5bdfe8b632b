import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from lhotse import CutSet

from asrcompress.data import batches
from asrcompress.data.batches import Batch, eval_loader, load_cuts, train_loader
from asrcompress.errors import UserError
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
def cuts(tiny_corpus: Path, encode: Encoder) -> CutSet:
    return load_cuts(prepared.data(tiny_corpus), ["train-quick", "dev"], encode)


def epoch(cuts: CutSet, encode: Encoder, **changed: Any) -> list[Batch]:
    options = {"batch_seconds": 9, "augmentation": AUGMENTATION, "seed": 0, "epoch": 0, "workers": 0, "buckets": 3}
    return list(train_loader(cuts, encode, **options | changed))


def ids(loaded: list[Batch]) -> list[list[str]]:
    return [batch["ids"] for batch in loaded]


def same(a: list[Batch], b: list[Batch]) -> bool:
    return ids(a) == ids(b) and all(torch.equal(x["x"], y["x"]) for x, y in zip(a, b, strict=True))


def test_an_epoch_has_every_utterance_once_at_one_of_its_speeds(cuts: CutSet, encode: Encoder) -> None:
    names = {cut.id: cut.supervisions[0].id.split("_sp")[0] for cut in cuts}
    for number in range(3):
        said = [name for batch in ids(epoch(cuts, encode, epoch=number)) for name in batch]
        assert Counter(names[name] for name in said) == Counter(set(names.values()))
    speeds = {
        name.partition("_sp")[2]
        for number in range(5)
        for batch in ids(epoch(cuts, encode, epoch=number))
        for name in batch
    }
    assert speeds == {"", "0.9", "1.1"}


def test_a_share_of_an_epoch_is_another_part_of_the_speech_each_time(cuts: CutSet, encode: Encoder) -> None:
    names = {cut.id: cut.supervisions[0].id.split("_sp")[0] for cut in cuts}
    drawn = []
    for number in range(12):
        said = [names[name] for batch in ids(epoch(cuts, encode, epoch=number, epoch_fraction=0.25)) for name in batch]
        assert len(said) == len(set(said)) == round(0.25 * len(set(names.values())))
        drawn.append(set(said))
    assert drawn[0] != drawn[1]
    assert len(set().union(*drawn)) > 0.9 * len(set(names.values()))
    assert len(batches.one_speed_each(cuts, 0, 0, 1e-9)) == 1


def test_a_batch_holds_the_cuts_features_and_tokens(cuts: CutSet, encode: Encoder) -> None:
    for batch in epoch(cuts, encode, augmentation=None):
        longest = max(cuts[name].duration for name in batch["ids"])
        assert len(batch["ids"]) * longest <= 9 or len(batch["ids"]) == 1
        for i, name in enumerate(batch["ids"]):
            features = torch.from_numpy(cuts[name].load_features())
            assert torch.equal(batch["x"][i, : batch["x_lens"][i]], features) and batch["x_lens"][i] == len(features)
            assert batch["targets"][i, : batch["target_lens"][i]].tolist() == encode(cuts[name].supervisions[0].text)
        assert batch["x_lens"].dtype == batch["target_lens"].dtype == torch.int64


def test_seed_and_epoch_decide_everything(cuts: CutSet, encode: Encoder) -> None:
    first = epoch(cuts, encode)
    torch.manual_seed(99)
    assert same(first, epoch(cuts, encode)) and same(first, epoch(cuts, encode, workers=1))
    for changed in ({"epoch": 1}, {"seed": 1}):
        assert ids(first) != ids(epoch(cuts, encode, **changed))
    assert not same(first, epoch(cuts, encode, augmentation=None))


def test_views_are_the_same_utterances_augmented_each_in_its_way(cuts: CutSet, encode: Encoder) -> None:
    for batch in epoch(cuts, encode, views=2):
        half = len(batch["ids"]) // 2
        assert batch["ids"][:half] == batch["ids"][half:] and not torch.equal(batch["x"][:half], batch["x"][half:])
        for name in ("clean", "x_lens", "targets", "target_lens"):
            assert torch.equal(batch[name][:half], batch[name][half:]) and len(batch[name]) == 2 * half
        assert len(batch["ids"]) * max(cuts[name].duration for name in batch["ids"]) <= 9.5 or half == 1
    said = [name for batch in epoch(cuts, encode, views=2) for name in batch["ids"]]
    assert Counter(said) == Counter(2 * [name for batch in epoch(cuts, encode) for name in batch["ids"]])


def test_clean_features_are_those_before_augmentation(cuts: CutSet, encode: Encoder) -> None:
    for batch, plain in zip(epoch(cuts, encode), epoch(cuts, encode, augmentation=None), strict=True):
        assert torch.equal(batch["clean"], plain["x"]) and not torch.equal(batch["clean"], batch["x"])


@pytest.mark.parametrize("workers", [0, 1])
def test_skip_gives_exactly_the_rest(cuts: CutSet, encode: Encoder, workers: int) -> None:
    whole = epoch(cuts, encode)
    assert len(whole) > 2
    for skip in (1, 2, len(whole)):
        assert same(epoch(cuts, encode, skip=skip, workers=workers), whole[skip:])


def test_ranks_share_an_epoch(cuts: CutSet, encode: Encoder) -> None:
    parts = [epoch(cuts, encode, rank=rank, world_size=2) for rank in range(2)]
    assert len(parts[0]) == len(parts[1])
    one, two = ([name for batch in ids(part) for name in batch] for part in parts)
    # Where a last batch has too few cuts to share, lhotse gives a copy of one, and says so in its id.
    assert not set(one) & set(two) and sum("_dup" in name for name in one + two) <= 1
    assert {name.split("_dup")[0] for name in one + two} == {
        name for batch in ids(epoch(cuts, encode)) for name in batch
    }


def test_words_outside_the_lexicon_and_long_cuts_are_left_out_and_counted(
    tiny_corpus: Path, cuts: CutSet, encode: Encoder, capsys: pytest.CaptureFixture[str]
) -> None:
    word = cuts[0].supervisions[0].text.split()[0]
    poorer = Encoder({}, {})
    poorer.ids = {other: tokens for other, tokens in encode.ids.items() if other != word}
    limit = sorted(cut.duration for cut in cuts)[len(cuts) // 2]
    kept = load_cuts(prepared.data(tiny_corpus), ["train-quick", "dev"], poorer, limit)
    without = [cut for cut in cuts if word not in cut.supervisions[0].text.split()]
    assert [cut.id for cut in kept] == [cut.id for cut in without if cut.duration <= limit]
    message = capsys.readouterr().out
    assert f"of {len(cuts)} cuts {len(cuts) - len(without)} have words outside the lexicon" in message
    assert f"and {len(without) - len(kept)} are longer than {limit} s" in message
    with pytest.raises(UserError, match="no cut of dev .* can be used"):
        load_cuts(prepared.data(tiny_corpus), ["dev"], Encoder({}, {}))
    with pytest.raises(UserError, match="the prepared set .*other.jsonl.gz does not exist"):
        load_cuts(prepared.data(tiny_corpus), ["other"], encode)


def test_evaluation_sees_every_cut_once_longest_first(cuts: CutSet, encode: Encoder) -> None:
    loaded = list(eval_loader(cuts, encode, batch_seconds=9))
    said = [name for batch in ids(loaded) for name in batch]
    assert said == [cut.id for cut in sorted(cuts, key=lambda cut: -cut.duration)] and len(loaded) > 2
    assert ids(list(eval_loader(cuts.subset(first=1), encode))) == [[cuts[0].id]]


def test_lhotse_does_not_warn_of_sets_in_memory(cuts: CutSet, encode: Encoder) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        epoch(cuts, encode)
        list(eval_loader(cuts, encode))


def test_seeds_are_the_same_everywhere() -> None:
    assert batches.hash_seed(0, 1, "a") == 1575865806123013661
    assert len({batches.hash_seed(seed, number) for seed in range(20) for number in range(20)}) == 400
