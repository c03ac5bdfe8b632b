import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asrcompress.data import features
from asrcompress.data.corpora.librispeech import prepare
from asrcompress.errors import UserError

SUBSET = "train-quick"


@pytest.fixture
def corpus(tiny_corpus: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(tiny_corpus, tmp_path / "corpus"))


def utterances(corpus: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted((corpus / "LibriSpeech" / SUBSET).rglob("*.flac"))}


def transcripts(corpus: Path) -> dict[str, str]:
    lines = [
        line
        for path in (corpus / "LibriSpeech" / SUBSET).rglob("*.trans.txt")
        for line in path.read_text().splitlines()
    ]
    return {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in lines}


def test_cuts_hold_what_the_files_say(tiny_corpus: Path) -> None:
    sentences: list[str] = []
    cuts = prepare(tiny_corpus, SUBSET, sentences.append)
    assert not sentences
    assert {cut.supervisions[0].id: cut.supervisions[0].text for cut in cuts} == transcripts(tiny_corpus)
    for cut in cuts:
        path = utterances(tiny_corpus)[cut.supervisions[0].id]
        assert cut.supervisions[0].speaker == path.parts[-3]
        np.testing.assert_array_equal(cut.load_audio()[0], soundfile.read(path, dtype="float32")[0])


def test_faulty_utterances_are_named_counted_and_left_out(corpus: Path) -> None:
    names = list(utterances(corpus))
    silent, missing, slow, broken = names[:4]
    table = utterances(corpus)[silent].parent / "101-1.trans.txt"
    table.write_text(table.read_text().replace(f"{silent} {transcripts(corpus)[silent]}", silent))
    utterances(corpus)[missing].unlink()
    soundfile.write(corpus / "x.flac", np.zeros(8000), 8000)
    shutil.move(corpus / "x.flac", utterances(corpus)[slow])
    utterances(corpus)[broken].write_bytes(b"no flac at all")
    sentences: list[str] = []
    cuts = prepare(corpus, SUBSET, sentences.append)
    assert sentences == [
        f"{SUBSET}: {silent} has an empty transcript; left out",
        f"{SUBSET}: {missing} has no audio; left out",
        f"{SUBSET}: {slow} is sampled at 8000 Hz instead of 16000 Hz; left out",
        f"{SUBSET}: {broken} has audio that cannot be read; left out",
        f"{SUBSET}: 4 of {len(names)} utterances left out",
    ]
    assert {cut.supervisions[0].id for cut in cuts} == set(names[4:])


def test_truncated_audio_is_named_once_when_it_is_decoded(corpus: Path) -> None:
    names = list(utterances(corpus))
    path = utterances(corpus)[names[0]]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    sentences: list[str] = []
    cuts = prepare(corpus, SUBSET, sentences.append)
    copies = [*cuts, *cuts.perturb_speed(0.9)]
    done = features.extract(copies, corpus / "fbank", 2, sentences.append)
    assert len(sentences) == 1 and sentences[0].startswith(f"{names[0]} has audio that cannot be decoded")
    assert {cut.supervisions[0].id.removesuffix("_sp0.9") for cut in done} == set(names[1:])
    assert len(done) == 2 * (len(names) - 1)


def test_missing_folders_and_folders_without_audio(corpus: Path) -> None:
    with pytest.raises(UserError, match="corpus folder .*nowhere does not exist"):
        prepare(corpus / "nowhere", SUBSET)
    with pytest.raises(UserError, match="train-clean-5 does not exist"):
        prepare(corpus, "train-clean-5")
    for path in utterances(corpus).values():
        path.unlink()
    with pytest.raises(UserError, match="holds no .flac audio"):
        prepare(corpus, SUBSET)


def test_nothing_usable(corpus: Path) -> None:
    for table in (corpus / "LibriSpeech" / SUBSET).rglob("*.trans.txt"):
        table.write_text("".join(f"{line.split()[0]}\n" for line in table.read_text().splitlines()))
    sentences: list[str] = []
    with pytest.raises(UserError, match="no usable utterance"):
        prepare(corpus, SUBSET, sentences.append)
