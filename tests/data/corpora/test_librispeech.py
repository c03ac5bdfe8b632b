import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asrcompress.data import corpora, features
from asrcompress.data.corpora import librispeech
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
    parts = [list(cuts)[:3], list(cuts)[3:], list(cuts.perturb_speed(0.9))]
    stored = list(features.extract(parts, corpus / "fbank", 2, sentences.append))
    done = [cut for part in stored for cut in part]
    assert len(sentences) == 1 and sentences[0].startswith(f"{names[0]} has audio that cannot be decoded")
    assert {cut.supervisions[0].id.removesuffix("_sp0.9") for cut in done} == set(names[1:])
    assert len(done) == 2 * (len(names) - 1)
    kept = [[cut.id for cut in part if not cut.supervisions[0].id.startswith(names[0])] for part in parts]
    assert [[cut.id for cut in part] for part in stored] == kept


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


def table(corpus: Path) -> Path:
    return corpus / "LibriSpeech" / SUBSET / "101" / "1" / "101-1.trans.txt"


def test_ids_and_speakers_may_hold_anything(corpus: Path) -> None:
    """A speaker with a dash, and ids that are not made of speaker and chapter."""
    folder = (corpus / "LibriSpeech" / SUBSET / "101").rename(corpus / "LibriSpeech" / SUBSET / "mc-tv_sports") / "1"
    names = sorted(path.stem for path in folder.glob("*.flac"))
    for name in names:
        (folder / f"{name}.flac").rename(folder / f"tv_sports-{name}.flac")
    lines = (folder / "101-1.trans.txt").read_text().splitlines()
    (folder / "101-1.trans.txt").write_text("".join(f"tv_sports-{line}\n" for line in lines))
    cuts = [cut for cut in prepare(corpus, SUBSET) if cut.supervisions[0].speaker == "mc-tv_sports"]
    assert [cut.supervisions[0].id for cut in cuts] == [f"tv_sports-{name}" for name in names]
    assert cuts[0].load_audio().size == cuts[0].recording.num_samples


def test_transcripts_with_tabs_marks_and_line_separators(corpus: Path) -> None:
    wanted = transcripts(corpus)
    lines = table(corpus).read_text().splitlines()
    lines = [line.replace(" ", "\t", 1).replace(" ", "\u2028", 1) for line in lines]
    table(corpus).write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8", newline="")
    sentences: list[str] = []
    cuts = prepare(corpus, SUBSET, sentences.append)
    assert {cut.supervisions[0].id: cut.supervisions[0].text for cut in cuts} == wanted
    assert not sentences


def test_an_utterance_listed_twice_stops_with_both_places(corpus: Path) -> None:
    lines = table(corpus).read_text().splitlines()
    table(corpus).write_text("\n".join([*lines, f"{lines[0].split()[0]} QUITE ANOTHER TEXT"]) + "\n")
    with pytest.raises(UserError, match=rf"101-1.trans.txt, line {len(lines) + 1}: utterance .* \(first on line 1\)"):
        prepare(corpus, SUBSET)
    table(corpus).write_text("\n".join(lines))
    shutil.copytree(table(corpus).parent, table(corpus).parents[1] / "2")
    with pytest.raises(UserError, match=r"2/101-1.trans.txt, line 1: .* \(first on line 1 of .*1/101-1.trans.txt\)"):
        prepare(corpus, SUBSET)


def test_audio_without_a_transcript_and_outside_a_speaker_is_named(corpus: Path) -> None:
    first, *rest = table(corpus).read_text().splitlines()
    table(corpus).write_text("\n".join(rest))
    shutil.copy(utterances(corpus)[first.split()[0]], corpus / "LibriSpeech" / SUBSET / "lost.flac")
    (corpus / "LibriSpeech" / SUBSET / "lost.trans.txt").write_text("lost A WORD\n")
    soundfile.write(utterances(corpus)[rest[0].split()[0]], np.zeros((16000, 2)), 16000)
    sentences: list[str] = []
    prepare(corpus, SUBSET, sentences.append)
    assert sentences[:3] == [f"{SUBSET}: {rest[0].split()[0]} has 2 channels instead of one; left out",
                             f"{SUBSET}: lost lies in no speaker's folder; left out",
                             f"{SUBSET}: {first.split()[0]} has no transcript; left out"]


def test_transcripts_that_are_no_text_are_named(corpus: Path) -> None:
    table(corpus).write_bytes(table(corpus).read_bytes() + "101-1-9999 CAFÉ\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"101-1.trans.txt, line [0-9]+: the byte 0xc9 is not UTF-8"):
        prepare(corpus, SUBSET)


def test_subsets_are_the_official_ones_or_all(tmp_path: Path) -> None:
    audio = tmp_path / "LibriSpeech"
    for name in ("dev-clean-2", "train-voices", "train-clean-5", "test-cv", "other"):
        (audio / name).mkdir(parents=True)
    (audio / "train-notes.txt").touch()
    assert librispeech.subsets(tmp_path) == (["train-clean-5", "train-voices"], ["dev-clean-2", "test-cv"])
    for name in ("test-other", "dev-clean", "train-other-500", "train-clean-100"):
        (audio / name).mkdir()
    assert librispeech.subsets(tmp_path) == (["train-clean-100", "train-other-500"], ["dev-clean", "test-other"])
    with pytest.raises(UserError, match="the corpus folder .* does not exist"):
        librispeech.subsets(tmp_path / "none")


def test_searches_and_lexicon_are_found_where_they_are(tmp_path: Path) -> None:
    assert librispeech.searches(tmp_path) == []
    with pytest.raises(UserError, match="librispeech-lexicon.txt is missing; put a lexicon there"):
        librispeech.lexicon(tmp_path)
    (tmp_path / "lm").mkdir()
    small, large, words = (tmp_path / "lm" / name for name in (
        "3-gram.pruned.3e-7.arpa.gz", "3-gram.arpa.gz", "librispeech-lexicon.txt"))
    small.touch()
    assert librispeech.searches(tmp_path) == [("tgsmall", small, None)]
    large.touch()
    words.touch()
    assert librispeech.searches(tmp_path) == [("tgsmall", small, None), ("tglarge", large, "tgsmall")]
    assert librispeech.lexicon(tmp_path) == words
    small.unlink()
    assert librispeech.searches(tmp_path) == [], "a large model alone has no lattices to rescore"


def test_a_download_that_fails_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("lhotse.recipes.download_librispeech", fail)
    with pytest.raises(UserError, match=r"download into .* failed \(no route to host\)"):
        librispeech.download(tmp_path, "mini")
    with pytest.raises(UserError, match="no edition 'tiny'; there are mini, full"):
        librispeech.download(tmp_path, "tiny")


def test_every_corpus_keeps_the_protocol() -> None:
    assert "librispeech" in corpora.names() and "base" not in corpora.names()
    methods = [name for name in vars(corpora.Corpus) if not name.startswith("_")]
    assert sorted(methods) == ["download", "lexicon", "prepare", "searches", "subsets"]
    for name in corpora.names():
        assert all(callable(getattr(corpora.get(name), method)) for method in methods)
    with pytest.raises(UserError, match="there is no corpus 'timit'; there are librispeech"):
        corpora.get("timit")
