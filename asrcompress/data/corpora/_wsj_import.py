"""From the discs of WSJ0 and WSJ1 to the folder that `wsj.py` reads: the only code that needs the discs.

Audio is decoded once, so that nothing else has to know shorten, and speed perturbation does not decode it three times.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import soundfile
from rich.progress import track

from asrcompress.data import sphere
from asrcompress.data.corpora import _wsj_bd, _wsj_lexicon, _wsj_lm, _wsj_text, wsj
from asrcompress.data.corpora._wsj_discs import RELEASES, SETS, Discs
from asrcompress.errors import UserError
from asrcompress.files import atomic, locked, read_jsonl
from asrcompress.lang import ngram, text
from asrcompress.processes import die_with_parent

TRANSCRIPTS = {"wsj0": "11-4.1, 11-10.1 or 11-14.1", "wsj1": "13-33.1 or 13-34.1"}


@dataclass
class _Plan:
    """What a set will hold: audio and text of the discs by utterance, who is left out and why, what discs lack."""

    set: str
    audio: dict[str, Path] = field(default_factory=dict)
    raw: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.set + (wsj.PARTIAL if self.missing else "")


def import_sets(discs: Discs, out: Path, sets: Sequence[str], partial: bool = False, jobs: int = 2,
                warn: Callable[[str], None] = print) -> None:
    """Write audio and text of some sets into `out`, in `jobs` processes; what is there already is kept.

    An utterance that cannot be used is named through `warn` and left out. With `partial`, so are those of missing
    discs, and the set is called SET_partial. Errors: UserError for a set that there is not, for a missing index or
    disc, for files that contradict each other, and where audio needs a decoder that is not installed.
    """
    for name in sets:
        if name.removesuffix(wsj.PARTIAL) not in SETS:
            raise UserError(f"there is no set '{name}' of WSJ; there are {', '.join(SETS)}")
    there = [name for name in sets if (out / f"{name}.jsonl").exists()]
    plans = [_plan(discs, name.removesuffix(wsj.PARTIAL), warn) for name in sets if name not in there]
    missing = list(dict.fromkeys(one for plan in plans for one in plan.missing))
    if missing and not partial:
        raise UserError(f"{'; '.join(missing)}; copy that beside the other discs, or give --partial to go on without")
    for name in there:
        print(f"{name}: there already", flush=True)
    audio = {name: path for plan in plans for name, path in plan.audio.items() if not _flac(out, name).exists()}
    _check_decoder(audio.values())
    with locked(out):
        for left in out.rglob(".*.tmp"):  # of a run that was killed
            left.unlink()
        faults = _decode_all(audio, out, jobs) if audio else {}
        for plan in plans:
            _write(plan, faults, out, warn)


def _plan(discs: Discs, name: str, warn: Callable[[str], None]) -> _Plan:
    plan = _Plan(name)
    for inner, index_disc in SETS[name].indices.items():
        release = RELEASES[inner[:4]]
        entries = discs.utterances(inner, index_disc)
        listed, there = Counter(one.disc for one in entries), {one.disc for one in entries if discs.find(one.inner)}
        plan.missing += [f"disc {disc} of {release}, with {count:,} utterances of {name}, is missing"
                         for disc, count in listed.items() if disc not in there]
        entries = [one for one in entries if one.disc in there]
        texts = _wsj_text.read(discs.dots(one.id for one in entries), warn)
        if entries and not any(one.id in texts for one in entries):
            plan.missing.append(f"the .dot files of {release} with the text of {len(entries):,} utterances of {name} "
                                f"(on disc {TRANSCRIPTS[inner[:4]]}) are missing")
            entries = []
        for one in entries:
            path, raw = discs.find(one.inner), texts.get(one.id)
            if not path:
                plan.left_out[one.id] = "has no audio"
            elif raw is None:
                plan.left_out[one.id] = "has no transcript"
            elif not _wsj_text.normalize(raw):
                plan.left_out[one.id] = f"holds no speech: its transcript is '{raw}'"
            else:
                plan.audio[one.id], plan.raw[one.id] = path, raw
    return plan


def _check_decoder(paths: Iterable[Path]) -> None:
    """DecoderMissing where a file needs a decoder that is not installed: before an hour of decoding, not after."""
    for path in paths:
        try:
            shorten = sphere.header(path).shorten
        except UserError:  # the fault of one file, which `_decode` will name
            continue
        if shorten:
            sphere.require_decoder(path)
            return


def _decode_all(audio: dict[str, Path], out: Path, jobs: int) -> dict[str, str]:
    """Write the FLAC files; utterance -> what is wrong with it, for those that have none then."""
    with ProcessPoolExecutor(jobs, initializer=die_with_parent) as pool:
        results = pool.map(_decode, audio.values(), [_flac(out, name) for name in audio], chunksize=16)
        done = zip(audio, track(results, "decoding", total=len(audio)), strict=True)
        return {name: problem for name, problem in done if problem}


def _decode(source: Path, target: Path) -> str | None:
    """Decode one file, to 16-bit FLAC; what is wrong with it, or None."""
    try:
        samples, sampling_rate = sphere.read(source)
    except sphere.DecoderMissing:
        raise
    except (UserError, OSError) as error:
        return f"cannot be used: {error}"
    if sampling_rate != wsj.SAMPLING_RATE:
        return f"is sampled at {sampling_rate} Hz instead of {wsj.SAMPLING_RATE} Hz"
    try:
        with atomic(target) as temporary:
            soundfile.write(temporary, samples, sampling_rate, format="FLAC", subtype="PCM_16")
    except (OSError, soundfile.SoundFileError) as error:
        raise UserError(f"{target} cannot be written ({error}); make room there and run it again to go on") from None
    return None


def _write(plan: _Plan, faults: dict[str, str], out: Path, warn: Callable[[str], None]) -> None:
    """The files of a set, the one that says that it is there last; then its counts beside the official ones."""
    left_out = plan.left_out | {name: faults[name] for name in plan.audio if name in faults}
    for name in sorted(left_out):
        warn(f"{plan.name}: {name} {left_out[name]}; left out")
    raw = {name: plan.raw[name] for name in sorted(plan.raw) if name not in left_out}
    if not raw:
        raise UserError(f"{plan.set} has no usable utterance ({len(left_out)} were left out); repair the discs' copy")
    rows = [{"id": name, "speaker": _speaker(name), "words": _wsj_text.normalize(raw[name])} for name in raw]
    text.write(out / f"{plan.name}.raw", raw)
    if plan.missing:
        _write_lines(out / f"{plan.name}.missing", plan.missing)
    _write_lines(out / f"{plan.name}.jsonl", [json.dumps(row) for row in rows])
    official, counts = SETS[plan.set], (len(rows), sum(len(row["words"].split()) for row in rows))
    said = f"{plan.name}: {counts[0]:,} utterances, {counts[1]:,} words (expected {official.utterances:,}"
    said += f" and {official.words:,})" if official.words else " utterances)"
    if counts[0] == official.utterances and official.words in (None, counts[1]):
        print(said, flush=True)
    else:
        warn(f"{said}: not the official set")


def _flac(out: Path, name: str) -> Path:
    return out / wsj.AUDIO / _speaker(name) / f"{name}.flac"


def _speaker(name: str) -> str:
    """An utterance's id begins with its speaker's."""
    return name[:3]


def _write_lines(path: Path, lines: list[str]) -> None:
    with atomic(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def import_language(discs: Discs, out: Path, names: Sequence[str], lexicon: Path | None = None,
                    bd_arpa: Path | None = None, warn: Callable[[str], None] = print) -> None:
    """Write lm/NAME.arpa.gz for language models under Kaldi's names, and lm/lexicon.txt; what is there already is kept.

    The lexicon is CMUdict with pronunciations by rule for what training sets and language models have besides.
    Errors: UserError for a name that there is not, and of `_wsj_lm`, `_wsj_bd` and `_wsj_lexicon`.
    """
    for name in names:
        if name not in wsj.RESCORES:
            raise UserError(f"there is no language model '{name}'; there are {', '.join(wsj.RESCORES)}")
    wanted = dict.fromkeys([*filter(None, map(wsj.RESCORES.get, names)), *names])  # what tg rescores comes before it
    folder = out / wsj.LM
    with locked(out):
        dictionary = _wsj_lexicon.read(lexicon)
        _wsj_lm.distributed(discs.find, folder, wanted, warn)
        if bd_arpa:
            _wsj_bd.given(bd_arpa, folder, wanted, warn)
        here = [name for name in wanted if (folder / f"{name}.arpa.gz").exists()]
        words = {fields[1] for name in here for _, fields in ngram.ngrams(folder / f"{name}.arpa.gz", 1)}
        words.update(word for path in sorted(out.glob("train_*.jsonl")) for row in read_jsonl(path)
                     for word in row["words"].split())
        big = [name for name in wanted if name in _wsj_bd.NAMES and name not in here]
        sentences = list(_wsj_bd.sentences(discs.files, dictionary)) if big else []
        words.update(_wsj_bd.words(sentences, dictionary))
        words.difference_update(ngram.SENTENCE)
        whole = _wsj_lexicon.write(dictionary, words, folder / wsj.LEXICON, warn)
        if big:
            _wsj_bd.train(sentences, whole, folder, big, _wsj_bd.HELD_OUT, warn)
