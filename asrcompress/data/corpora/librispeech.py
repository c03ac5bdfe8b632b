"""LibriSpeech, mini LibriSpeech, and whatever is laid out like them: SUBSET/SPEAKER/CHAPTER/*.flac, *.trans.txt."""

from collections.abc import Callable
from pathlib import Path

import soundfile
from lhotse import CutSet, RecordingSet, SupervisionSet
from lhotse.recipes import download_librispeech
from lhotse.recipes.librispeech import parse_utterance

from asrcompress.errors import UserError
from asrcompress.files import require_file

SAMPLING_RATE = 16_000
LM_NAMES = ("3-gram.pruned.3e-7.arpa.gz", "3-gram.arpa.gz", "librispeech-lexicon.txt", "librispeech-vocab.txt")


def download(folder: Path, mini: bool) -> None:
    """Fetch the audio from openslr.org/12 or /31 and the language models from /11, with lhotse's downloader."""
    from urllib.request import urlretrieve

    size = "mini LibriSpeech, about 0.5 GB" if mini else "LibriSpeech, about 60 GB"
    print(f"Downloading {size} of audio and 0.8 GB of language models into {folder}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        download_librispeech(folder, dataset_parts="mini_librispeech" if mini else "librispeech")
        (folder / "lm").mkdir(exist_ok=True)
        for name in LM_NAMES:
            target = folder / "lm" / name
            if not target.exists():
                urlretrieve(f"https://www.openslr.org/resources/11/{name}", target.with_suffix(".part"))
                target.with_suffix(".part").rename(target)
    except OSError as error:
        raise UserError(f"the download into {folder} failed ({error}); run the stage again to go on, "
                        "or give a folder that holds LibriSpeech/ and lm/ with --corpus") from None


def fault(flac: Path, text: str) -> str | None:
    """What is wrong with an utterance, or None; reads the header of the audio only."""
    if not text:
        return "has an empty transcript"
    if not flac.exists():
        return "has no audio"
    try:
        rate = soundfile.info(str(flac)).samplerate
    except soundfile.LibsndfileError:
        return "has audio that cannot be read"
    return None if rate == SAMPLING_RATE else f"is sampled at {rate} Hz instead of {SAMPLING_RATE} Hz"


def prepare(corpus: Path, subset: str, warn: Callable[[str], None] = print) -> CutSet:
    """The subset's cuts, one an utterance, through lhotse's reader of LibriSpeech.

    An utterance that cannot be used is named through `warn` and left out.
    """
    folder = require_file(require_file(corpus, "the corpus folder") / "LibriSpeech" / subset, "the subset's folder")
    if not any(folder.rglob("*.flac")):
        raise UserError(f"{folder} holds no .flac audio; unpack the subset there, or name another one")
    recordings, supervisions, left_out = [], [], 0
    for transcripts in sorted(folder.rglob("*.trans.txt")):
        for line in filter(None, map(str.strip, transcripts.read_text(encoding="utf-8").splitlines())):
            name, _, text = line.partition(" ")
            problem = fault(transcripts.parent / f"{name}.flac", text.strip())
            if problem:
                warn(f"{subset}: {name} {problem}; left out")
                left_out += 1
                continue
            recording, supervision = parse_utterance(folder, line, {})
            recordings.append(recording)
            supervisions.append(supervision)
    if not recordings:
        raise UserError(f"{folder} has no usable utterance ({left_out} were left out); repair the corpus")
    if left_out:
        warn(f"{subset}: {left_out} of {left_out + len(recordings)} utterances left out")
    return CutSet.from_manifests(
        recordings=RecordingSet.from_recordings(recordings), supervisions=SupervisionSet.from_segments(supervisions)
    ).to_eager()
