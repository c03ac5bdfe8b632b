"""LibriSpeech, mini LibriSpeech, and whatever is laid out like them: SUBSET/SPEAKER/CHAPTER/*.flac, *.trans.txt.

    FOLDER/LibriSpeech/SUBSET/SPEAKER/CHAPTER/ID.flac and SPEAKER-CHAPTER.trans.txt (ID WORD WORD ..., a line each)
    FOLDER/lm/  the lexicon and the language models of openslr.org/11, under their names there

Panayotov et al., "LibriSpeech: an ASR corpus based on public domain audio books", ICASSP 2015.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from asrcompress.data.corpora.base import Search, Subsets
from asrcompress.errors import UserError
from asrcompress.files import require_file
from asrcompress.lang import text

if TYPE_CHECKING:
    from lhotse import CutSet, MonoCut

SAMPLING_RATE = 16_000
AUDIO, LM = "LibriSpeech", "lm"
SMALL_LM, LARGE_LM = "3-gram.pruned.3e-7.arpa.gz", "3-gram.arpa.gz"
LEXICON, VOCABULARY = "librispeech-lexicon.txt", "librispeech-vocab.txt"
TRANSCRIPTS = ".trans.txt"  # what a chapter's transcript file ends with
OFFICIAL = Subsets(["train-clean-100", "train-clean-360", "train-other-500"],
                   ["dev-clean", "dev-other", "test-clean", "test-other"])
EDITIONS = {"mini": ("mini_librispeech", "0.5 GB"), "full": ("librispeech", "60 GB")}  # lhotse's name and the size


def download(folder: Path, edition: str) -> None:
    """Fetch the audio from openslr.org/12 ("full") or /31 ("mini") and the language models from /11.

    Errors: UserError for another edition, and where the network or the disk fails.
    """
    from lhotse.recipes import download_librispeech

    if edition not in EDITIONS:
        raise UserError(f"LibriSpeech has no edition '{edition}'; there are {', '.join(EDITIONS)}")
    parts, size = EDITIONS[edition]
    print(f"Downloading {size} of audio and 0.8 GB of language models into {folder}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        download_librispeech(folder, dataset_parts=parts)
        for name in (SMALL_LM, LARGE_LM, LEXICON, VOCABULARY):
            _fetch(folder / LM / name)
    except OSError as error:
        raise UserError(f"the download into {folder} failed ({error}); run the stage again to go on, "
                        f"or give a folder that holds {AUDIO}/ and {LM}/ with --corpus") from None


def _fetch(target: Path) -> None:
    from urllib.request import urlretrieve

    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        urlretrieve(f"https://www.openslr.org/resources/11/{target.name}", part)
        part.rename(target)


def subsets(folder: Path) -> Subsets:
    """The official sets that are there, where any of them is; else every train-*, and every dev-* and test-*."""
    audio = _audio(folder)
    there = sorted(path.name for path in audio.iterdir() if path.is_dir())
    official = Subsets(*([name for name in names if name in there] for names in OFFICIAL))
    if official.train or official.test:
        return official
    return Subsets([name for name in there if name.startswith("train-")],
                   [name for kind in ("dev-", "test-") for name in there if name.startswith(kind)])


def searches(folder: Path) -> list[Search]:
    """tgsmall, over the pruned trigram of openslr.org/11, and tglarge, which rescores with the full one."""
    small, large = folder / LM / SMALL_LM, folder / LM / LARGE_LM
    found = [Search("tgsmall", small), Search("tglarge", large, rescores="tgsmall")]
    return found[:small.exists() + (small.exists() and large.exists())]


def lexicon(folder: Path) -> Path:
    """The path of the lexicon. Errors: UserError where it is missing."""
    path = folder / LM / LEXICON
    if not path.exists():
        raise UserError(f"{path} is missing; put a lexicon there, one 'WORD phone phone ...' a line")
    return path


def _audio(folder: Path) -> Path:
    return require_file(require_file(folder, "the corpus folder") / AUDIO, "the corpus's folder")


def prepare(folder: Path, subset: str, warn: Callable[[str], None] = print) -> "CutSet":
    """The subset's cuts, one an utterance; the speaker is the name of the folder right below the subset's.

    An utterance that cannot be used is named through `warn` and left out. Errors: UserError where the folder is missing
    or holds nothing to use, where an utterance is listed twice, and where a transcript is not understood.
    """
    audio = require_file(_audio(folder) / subset, "the subset's folder")
    unheard = {path.stem: path for path in sorted(audio.rglob("*.flac"))}
    if not unheard:
        raise UserError(f"{audio} holds no .flac audio; unpack the subset there, or name another one")
    cuts: list[MonoCut] = []
    left_out = []
    for flac, words in listed(audio):
        unheard.pop(flac.stem, None)
        speaker, *inner = flac.relative_to(audio).parts
        problem = fault(flac, words) if inner else "lies in no speaker's folder"
        if problem:
            left_out.append(f"{flac.stem} {problem}")
        else:
            cuts.append(cut(flac, words, speaker, len(cuts)))
    left_out += [f"{name} has no transcript" for name in unheard]
    return usable(cuts, left_out, subset, audio, warn)


def usable(cuts: list["MonoCut"], left_out: list[str], subset: str, folder: Path,
           warn: Callable[[str], None]) -> "CutSet":
    """The cuts of a subset; what was left out is said and counted. Errors: UserError where nothing is left."""
    from lhotse import CutSet

    for one in left_out:
        warn(f"{subset}: {one}; left out")
    if not cuts:
        raise UserError(f"{folder} has no usable utterance ({len(left_out)} were left out); repair the corpus")
    if left_out:
        warn(f"{subset}: {len(left_out)} of {len(left_out) + len(cuts)} utterances left out")
    return CutSet.from_cuts(cuts)


def listed(audio: Path) -> list[tuple[Path, str]]:
    """Audio file and words of every line of the transcript files, sorted by file."""
    found, ids = [], text.Ids()
    for path in sorted(audio.rglob(f"*{TRANSCRIPTS}")):
        for number, name, words in text.entries(path):
            ids.add(name, path, number)
            found.append((path.parent / f"{name}.flac", words))
    return found


def fault(flac: Path, words: str) -> str | None:
    """What is wrong with an utterance, or None; reads the header of the audio only."""
    import soundfile

    if not words:
        return "has an empty transcript"
    if not flac.exists():
        return "has no audio"
    try:
        info = soundfile.info(str(flac))
    except soundfile.LibsndfileError:
        return "has audio that cannot be read"
    if info.samplerate != SAMPLING_RATE:
        return f"is sampled at {info.samplerate} Hz instead of {SAMPLING_RATE} Hz"
    return None if info.channels == 1 else f"has {info.channels} channels instead of one"


def cut(flac: Path, words: str, speaker: str, number: int) -> "MonoCut":
    """The cut of one utterance; `number` makes its id differ from those of other cuts of the file."""
    from lhotse import MonoCut, Recording, SupervisionSegment

    recording = Recording.from_file(flac, recording_id=flac.stem)
    said = SupervisionSegment(flac.stem, flac.stem, 0.0, recording.duration, text=words, language="English",
                              speaker=speaker)
    return MonoCut(f"{flac.stem}-{number}", 0.0, recording.duration, 0, supervisions=[said], recording=recording)
