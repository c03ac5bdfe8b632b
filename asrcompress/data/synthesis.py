"""A spoken corpus without a download: eSpeak NG speaks sentences of a small grammar, in LibriSpeech's layout.

    OUT/LibriSpeech/{train-quick,dev-quick}/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NNNN.flac and ....trans.txt   16 kHz
    OUT/lm/librispeech-lexicon.txt, OUT/lm/librispeech-vocab.txt

The two subsets share no voice and no sentence. One seed gives one corpus, sample for sample: each speaker is a
process of its own (see espeak.py), so neither the number of cores nor the other speakers play a part.
"""

import json
import math
import os
import random
import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import soundfile
from rich.progress import track
from scipy.signal import resample_poly

from asrcompress.data import grammar as grammars
from asrcompress.data import quickstart
from asrcompress.data.corpora import librispeech
from asrcompress.data.espeak import Espeak, Voice
from asrcompress.errors import UserError
from asrcompress.files import atomic, sha256
from asrcompress.lang import lexicon as lexicons
from asrcompress.processes import die_with_parent

SAMPLING_RATE = librispeech.SAMPLING_RATE
TRAIN, TEST = "train-quick", "dev-quick"
# espeak's accents and voice variants (m: a man, f: a woman). A variant belongs to one speaker only.
VOICES = {
    TRAIN: [
        "en-us+m1", "en-us+f1", "en-029+m2", "en-us+f2", "en-us+m3", "en-gb-x-rp+f3", "en-us+m4", "en-us-nyc+f5",
        "en-gb-scotland+m6", "en-us+linda", "en-us+m8", "en-us-nyc+steph", "en-us+david", "en-gb-x-rp+adam",
        "en-us+benjamin", "en-us+edward", "en-gb-scotland+ian", "en-us+john", "en-us-nyc+paul", "en-us+victor",
    ],
    TEST: ["en-us+f4", "en-us+m7", "en-us-nyc+m5", "en-us+Andrea"],
}
FIRST_SPEAKER = {TRAIN: 101, TEST: 201}
SHORTEST_SENTENCE = 1.5  # seconds; so many sentences are drawn that the time is filled


@dataclass(frozen=True)
class _Speaker:
    """What one process needs to know: who says what, where it is written, and for how long."""

    folder: Path  # .../SPEAKER/CHAPTER
    voice: Voice
    sentences: list[str]
    seconds: float
    seed: int


def synthesize(
    out: Path | str,
    grammar: Path | str = quickstart.GRAMMAR,
    lexicon: Path | str = quickstart.LEXICON,
    train_minutes: float = 40,
    test_minutes: float = 4,
    seed: int = 0,
    speakers: Sequence[int] = (20, 4),
) -> None:
    """Write the corpus into `out`, with the first `speakers` voices of train-quick and of dev-quick.

    `grammar` (see grammar.py) says what is said, `lexicon` lists every word of it; the quickstart's where not given.
    A corpus that is there already, made with the same settings, is kept. UserError for another corpus in `out`,
    a grammar that is none, and words of it that the lexicon does not have.
    """
    out = Path(out)
    settings = {"train_minutes": train_minutes, "test_minutes": test_minutes, "seed": seed, "speakers": list(speakers),
                "grammar": sha256(grammar, "the grammar"),
                "lexicon": sha256(lexicon, "the lexicon")}
    if _is_done(out / ".done", settings):
        return
    rules = grammars.read(grammar)
    vocabulary = _copy_lexicon(Path(lexicon), out / librispeech.LM)
    if missing := sorted(grammars.words(rules) - vocabulary):
        raise UserError(f"{lexicon} has no sounds for {' '.join(missing)}; add a line for each word of {grammar}")
    said: set[str] = set()
    # The test set comes first, so that it stays the same whatever the size of the training set.
    audio = out / librispeech.AUDIO
    jobs = _speakers(audio / TEST, VOICES[TEST][:speakers[1]], test_minutes, seed, rules, said)
    jobs += _speakers(audio / TRAIN, VOICES[TRAIN][:speakers[0]], train_minutes, seed, rules, said)
    _run(jobs)
    with atomic(out / ".done") as marker:
        marker.write_text(json.dumps(settings) + "\n")


def _is_done(marker: Path, settings: dict) -> bool:
    if not marker.exists():
        return False
    if json.loads(marker.read_text()) != settings:
        raise UserError(f"{marker.parent} holds a corpus made with other settings; remove it or choose another folder")
    return True


def _copy_lexicon(lexicon: Path, folder: Path) -> set[str]:
    """Put the lexicon and its vocabulary under the names that openslr.org gives them; return the vocabulary."""
    vocabulary = set(lexicons.read(lexicon))
    with atomic(folder / librispeech.LEXICON) as path:
        shutil.copyfile(lexicon, path)
    with atomic(folder / librispeech.VOCABULARY) as path:
        path.write_text("".join(f"{word}\n" for word in sorted(vocabulary)), encoding="utf-8")
    return vocabulary


def _speakers(
    folder: Path, voices: list[str], minutes: float, seed: int, rules: grammars.Grammar, said: set[str]
) -> list[_Speaker]:
    """A job for each of `voices`, who share the minutes; an unfinished subset in `folder` is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    seconds = 60 * minutes / len(voices)
    jobs = []
    for number, name in enumerate(voices, FIRST_SPEAKER[folder.name]):
        rng = random.Random(f"{seed} {number}")
        voice = Voice(name, rate=rng.randint(140, 190), pitch=rng.randint(35, 65), range=rng.randint(30, 70))
        sentences = _draw(rules, rng, math.ceil(seconds / SHORTEST_SENTENCE), said)
        jobs.append(_Speaker(folder / str(number) / "1", voice, sentences, seconds, rng.randrange(2**32)))
    return jobs


def _draw(rules: grammars.Grammar, rng: random.Random, count: int, said: set[str]) -> list[str]:
    """`count` sentences that are not in `said`; they are added to it."""
    sentences: list[str] = []
    for _ in range(100 * count):
        sentence = " ".join(grammars.draw(rules, rng))
        if sentence not in said:
            said.add(sentence)
            sentences.append(sentence)
        if len(sentences) == count:
            return sentences
    raise UserError("the grammar has too few different sentences for so many minutes; ask for fewer or add words to it")


def _run(jobs: list[_Speaker]) -> None:
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])  # imports once what every process needs
    with ProcessPoolExecutor(os.cpu_count(), context, initializer=die_with_parent, max_tasks_per_child=1) as pool:
        for _ in track(pool.map(_speak, jobs), "Speaking", total=len(jobs), transient=True):
            pass


def _speak(speaker: _Speaker) -> None:
    """One speaker's chapter: sentences until the time is filled, then the transcript."""
    espeak = Espeak()
    rng = np.random.default_rng(speaker.seed)
    prefix = "-".join(speaker.folder.parts[-2:])
    transcript, seconds = [], 0.0
    speaker.folder.mkdir(parents=True)
    for number, sentence in enumerate(speaker.sentences):
        if seconds >= speaker.seconds:
            break
        samples = _in_a_room(espeak.say(sentence.lower(), speaker.voice), espeak.sampling_rate, rng)
        name = f"{prefix}-{number:04d}"
        soundfile.write(speaker.folder / f"{name}.flac", samples, SAMPLING_RATE, subtype="PCM_16")
        transcript.append(f"{name} {sentence}\n")
        seconds += len(samples) / SAMPLING_RATE
    with atomic(speaker.folder / f"{prefix}{librispeech.TRANSCRIPTS}") as path:
        path.write_text("".join(transcript), encoding="utf-8")


def _in_a_room(samples: np.ndarray, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """(samples,) int16 at `sampling_rate` -> float32 at 16 kHz, with white noise 20 to 35 dB below the speech."""
    common = math.gcd(SAMPLING_RATE, sampling_rate)
    speech = resample_poly(samples / 32768, SAMPLING_RATE // common, sampling_rate // common)
    speech *= rng.uniform(0.3, 0.7) / max(float(np.abs(speech).max(initial=0)), 1e-3)
    level = np.sqrt(np.mean(speech**2)) * 10 ** (-rng.uniform(20, 35) / 20)
    return np.clip(speech + level * rng.standard_normal(len(speech)), -1, 1).astype(np.float32)
