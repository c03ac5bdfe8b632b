import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asrcompress.data import grammar, synthesis
from asrcompress.data.quickstart import GRAMMAR, LEXICON
from asrcompress.errors import UserError


def transcripts(corpus: Path, subset: str) -> dict[str, str]:
    paths = (corpus / "LibriSpeech" / subset).rglob("*.trans.txt")
    return dict(line.split(" ", 1) for path in paths for line in path.read_text().splitlines())


def test_layout_is_that_of_librispeech(tiny_corpus: Path) -> None:
    for subset, speakers, seconds in (("train-quick", {"101", "102"}, 24), ("dev-quick", {"201"}, 7.8)):
        folder, length = tiny_corpus / "LibriSpeech" / subset, 0.0
        said = transcripts(tiny_corpus, subset)
        assert {path.name for path in folder.iterdir()} == speakers
        assert {path.stem for path in folder.rglob("*.flac")} == set(said)
        for name in said:
            speaker, chapter, _ = name.split("-")
            info = soundfile.info(folder / speaker / chapter / f"{name}.flac")
            assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
            length += info.duration
        assert seconds <= length < seconds + 5 * len(speakers)  # a speaker ends with a whole sentence


def test_lhotse_reads_it(tiny_corpus: Path) -> None:
    recipes = pytest.importorskip("lhotse.recipes.librispeech")
    manifests = recipes.prepare_librispeech(tiny_corpus / "LibriSpeech", dataset_parts=["train-quick", "dev-quick"])
    for subset in ("train-quick", "dev-quick"):
        texts = {segment.id: segment.text for segment in manifests[subset]["supervisions"]}
        assert texts == transcripts(tiny_corpus, subset)


def test_words_are_in_the_lexicon_and_sentences_are_not_shared(tiny_corpus: Path) -> None:
    train, test = (transcripts(tiny_corpus, subset).values() for subset in ("train-quick", "dev-quick"))
    vocabulary = set((tiny_corpus / "lm" / "librispeech-vocab.txt").read_text().split())
    assert {word for text in [*train, *test] for word in text.split()} <= vocabulary
    assert not set(train) & set(test)


def test_voices_are_not_shared() -> None:
    variants = [name.split("+")[1] for names in synthesis.VOICES.values() for name in names]
    assert len(variants) == len(set(variants)) == 24


def test_grammar_and_lexicon_are_complete() -> None:
    words = grammar.words(grammar.read(GRAMMAR))
    lexicon = [line.split() for line in LEXICON.read_text().splitlines()]
    assert len(words) >= 150
    assert {word for word, *_ in lexicon} == words
    phones = {re.sub(r"\d", "", phone) for _, *sounds in lexicon for phone in sounds}
    assert len(phones) == 39  # CMUdict's phone set, all of it
    vowels = [phone for _, *sounds in lexicon for phone in sounds if phone[0] in "AEIOU"]
    assert all(vowel[-1] in "012" for vowel in vowels)


def test_one_seed_gives_one_corpus(tiny_corpus: Path, tmp_path: Path) -> None:
    # Neither the other speakers nor the number of training minutes change what the test speaker says.
    same, other = tmp_path / "same", tmp_path / "other"
    synthesis.synthesize(same, GRAMMAR, LEXICON, 0.05, 0.13, speakers=(1, 1))
    synthesis.synthesize(other, GRAMMAR, LEXICON, 0.05, 0.13, seed=1, speakers=(1, 1))
    said = transcripts(tiny_corpus, "dev-quick")
    assert said == transcripts(same, "dev-quick") != transcripts(other, "dev-quick")
    for name in said:
        path = Path("LibriSpeech", "dev-quick", "201", "1", f"{name}.flac")
        first, second = (soundfile.read(corpus / path)[0] for corpus in (tiny_corpus, same))
        np.testing.assert_array_equal(first, second)


def test_noise_is_20_to_35_db_below_the_speech() -> None:
    rate, rng = 22050, np.random.default_rng(0)
    tone = (10000 * np.sin(2 * np.pi * 441 * np.arange(2 * rate) / rate)).astype(np.int16)
    for _ in range(20):
        noisy = synthesis._in_a_room(tone, rate, rng)
        assert noisy.shape == (32000,)
        spectrum = np.abs(np.fft.rfft(noisy[:16000].astype(float))) ** 2
        signal = spectrum[440:443].sum()  # bins of 1 Hz
        assert 19 < 10 * np.log10(signal / (spectrum.sum() - signal)) < 36


def test_a_finished_corpus_is_kept_and_never_overwritten(tiny_corpus: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny_corpus.rglob("*")}
    synthesis.synthesize(tiny_corpus, GRAMMAR, LEXICON, 0.4, 0.13, speakers=(2, 1))
    with pytest.raises(UserError, match="other settings"):
        synthesis.synthesize(tiny_corpus, GRAMMAR, LEXICON, 0.4, 0.13, seed=5, speakers=(2, 1))
    for number, path in enumerate((GRAMMAR, LEXICON)):
        other = tmp_path / path.name
        other.write_text(path.read_text() + "# another\n")
        with pytest.raises(UserError, match="other settings"):
            synthesis.synthesize(tiny_corpus, *([other, LEXICON], [GRAMMAR, other])[number], 0.4, 0.13, speakers=(2, 1))
    assert before == {path: path.stat().st_mtime_ns for path in tiny_corpus.rglob("*")}


def test_word_without_sounds(tmp_path: Path) -> None:
    (tmp_path / "grammar.txt").write_text("sentence: hello after the storm\n")
    with pytest.raises(UserError, match="no sounds for HELLO"):
        synthesis.synthesize(tmp_path / "out", tmp_path / "grammar.txt", LEXICON)
    assert not (tmp_path / "out" / ".done").exists()


def test_too_small_a_grammar(tmp_path: Path) -> None:
    (tmp_path / "grammar.txt").write_text("sentence: after the storm\n")
    with pytest.raises(UserError, match="too few different sentences"):
        synthesis.synthesize(tmp_path / "out", tmp_path / "grammar.txt", LEXICON, 1, 1)
