"""Search a whole posterior archive, on several cores and with several scales in one go, and count what it cost."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np

from asrcompress.decoding.archive import Archive
from asrcompress.errors import UserError
from asrcompress.fsa.search import Searcher, batches, best_words, with_acoustic_scale, with_lm_scale
from asrcompress.measure.machine import peak_rss
from asrcompress.processes import die_with_parent

BATCH_FRAMES = 1000  # 40 s of audio: larger batches take more memory and are no faster on a CPU
RETRIES = 2


class Setting(NamedTuple):
    """The numbers that a sweep varies. `lm_scale` acts on the rescoring language model alone; `blank_penalty` is taken
    from the blank's log-posterior, before the acoustic scale."""

    acoustic_scale: float
    lm_scale: float = 1.0
    blank_penalty: float = 0.0


@dataclass
class Result:
    """Hypotheses as word ids, and the cost: `seconds` of wall time and `cpu_seconds`, summed over the processes.

    `empty` utterances reached no end of the graph even with the widest beam and have no words; `retried` ones needed a
    wider beam than asked for.
    """

    words: dict[str, list[int]] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    empty: int = 0
    retried: int = 0
    peak_rss_bytes: int = 0

    def add(self, other: "Result") -> None:
        """Add the words, seconds and counts of another part of the set."""
        self.words.update(other.words)
        for name in ("seconds", "cpu_seconds", "empty", "retried"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.peak_rss_bytes = max(self.peak_rss_bytes, other.peak_rss_bytes)


class Decoder:
    """An archive, a searcher, and how to go about it; calling it with a batch searches the batch.

    With `lattice_scale` there is one search, with this acoustic scale, and each setting takes the best path of its
    lattice: many settings cost little more than one. Errors: UserError with a searcher that rescores.
    """

    used = False  # whether this process has searched

    def __init__(self, archive: Archive, searcher: Searcher, settings: Sequence[Setting],
                 lattice_scale: float | None = None) -> None:
        self.archive, self.searcher, self.settings, self.lattice_scale = archive, searcher, settings, lattice_scale
        if lattice_scale is not None and searcher.grammar is not None:
            raise UserError("--lattice-scale goes without --rescore, in whose lattices a frame without a token and a "
                            "back-off look alike")
        highest = int(searcher.graph.labels.max())
        if highest >= archive.dim:
            raise UserError(f"{archive.path} has {archive.dim} tokens, the graph reads token {highest}; "
                            "make both with the same lang folder")

    def __call__(self, utts: Sequence[str]) -> dict[Setting, Result]:
        """Results by setting; settings that differ in `lm_scale` alone share their lattices."""
        Decoder.used = True
        log_probs = [self.archive[utt] for utt in utts]
        if self.lattice_scale is not None:
            return self._search(utts, log_probs, list(self.settings))
        out: dict[Setting, Result] = {}
        shared = dict.fromkeys(setting._replace(lm_scale=1.0) for setting in self.settings)
        for one in shared:
            alike = [setting for setting in self.settings if setting._replace(lm_scale=1.0) == one]
            out |= self._search(utts, log_probs, alike)
        return out

    def _search(self, utts: Sequence[str], log_probs: list[np.ndarray], settings: list[Setting],
                retries: int = 0) -> dict[Setting, Result]:
        """One lattice an utterance, its best path for each lm scale; empty ones again with a wider beam."""
        start, cpu = time.perf_counter(), time.process_time()
        beams = self.searcher.beams
        for _ in range(retries):
            beams = beams.wider()
        first = settings[0] if self.lattice_scale is None else Setting(self.lattice_scale)
        lattices = self.searcher.lattices(log_probs, first.acoustic_scale, first.blank_penalty, beams)
        if self.searcher.grammar is not None:
            lattices = self.searcher.rescored(lattices)
        shared, shared_cpu = time.perf_counter() - start, time.process_time() - cpu
        out = {}
        for setting in settings:
            start, cpu = time.perf_counter(), time.process_time()
            scaled = lattices
            if self.lattice_scale is not None:
                scaled = with_acoustic_scale(lattices, self.lattice_scale, setting.acoustic_scale,
                                             setting.blank_penalty)
            elif setting.lm_scale != 1.0:
                scaled = with_lm_scale(lattices, setting.lm_scale)
            found = best_words(scaled)
            out[setting] = Result(
                {utt: words or [] for utt, words in zip(utts, found, strict=True)},
                shared + time.perf_counter() - start, shared_cpu + time.process_time() - cpu,
                peak_rss_bytes=peak_rss())
            missing = [i for i, words in enumerate(found) if words is None]
        for i in missing:
            if retries < RETRIES:
                again = self._search([utts[i]], [log_probs[i]], settings, retries + 1)
                for setting, result in again.items():
                    out[setting].add(result)
                    out[setting].retried += retries == 0
            else:
                for result in out.values():
                    result.empty += 1
        return out


_decoder: Decoder | None = None  # set before the processes are forked, so that they share the graph's memory


def _work(utts: list[str]) -> dict[Setting, Result]:
    assert _decoder is not None
    return _decoder(utts)


@contextmanager
def _mapped(decoder: Decoder, work: list[list[str]], jobs: int) -> Iterator[Iterator[dict[Setting, Result]]]:
    """The results of each batch, from this process or from `jobs` others.

    k2 starts threads at its first search, and they do not survive a fork: a process that has searched cannot share.
    """
    global _decoder
    if jobs == 1:
        yield map(decoder, work)
        return
    if Decoder.used:
        raise RuntimeError("several jobs need a process that has not searched yet")
    _decoder = decoder
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork"), initializer=die_with_parent) as pool:
        try:
            yield (future.result() for future in as_completed([pool.submit(_work, utts) for utts in work]))
        except BrokenProcessPool:
            raise UserError(f"a process that searched {decoder.archive.path} ended early, as happens without enough "
                            "memory; run fewer with --nj, or choose smaller beams") from None


def decode(decoder: Decoder, jobs: int = 1,
           progress: Callable[[int, int], None] | None = None) -> dict[Setting, Result]:
    """Search the whole archive in `jobs` processes; `progress(done, all)` is called after each batch.

    Utterances without a frame get no words and count as empty.
    """
    archive = decoder.archive
    silent = [utt for utt in archive.utts if not archive.frames(utt)]
    work = batches(archive, set(archive.utts).difference(silent), BATCH_FRAMES)
    total = {setting: Result({utt: [] for utt in silent}, empty=len(silent)) for setting in decoder.settings}
    with _mapped(decoder, work, jobs) as all_results:
        for done, results in enumerate(all_results, 1):
            for setting, result in results.items():
                total[setting].add(result)
            if progress:
                progress(done, len(work))
    return total


def report(archive: Archive, setting: Setting, result: Result) -> dict[str, Any]:
    """The cost as plain JSON. `rtf` is CPU seconds of search per second of audio, so that it stands for one core.

    `wall_rtf` is time on the clock, which is less where k2 prunes in a second thread and more on a busy machine.
    """
    frames = sum(archive.frames(utt) for utt in archive.utts)
    audio = max(frames * archive.frame_seconds, 1e-9)
    numbers = asdict(result)
    del numbers["words"]
    return {**setting._asdict(), "rtf": result.cpu_seconds / audio, "wall_rtf": result.seconds / audio,
            "frames": frames, "utts": len(archive), **numbers}
