"""A miniature of the LDC's discs of WSJ0 and WSJ1: invented sentences, spoken by eSpeak, and speakers that WSJ has not.

The speakers are zz0 (WSJ0, disc 11-1.1), zz1 (13-1.1) and zz2 (13-16.1, with names in upper case) to train on, zz3 for
dev93, zz4 for eval92, and zz5 for eval93, whose index says disc 13_32_1 for what is on 13-33.1.
"""

import shutil
from collections.abc import Callable, Iterator
from copy import copy
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile

from asrcompress.lang import ngram
from recipes.wsj import discs

LAYOUTS = ("discs", "underscores", "nested", "flat", "inside")
CODINGS = ("pcm-be", "pcm-le", "shorten1", "shorten2", "pcm-be", "shorten2")
NO_SPEECH = "zz1c0106"
# Every transcript is decorated with what says nothing, or nothing else; the words stay.
DECORATIONS: tuple[Callable[[str], str], ...] = (
    lambda said: f"[loud_breath] {said.lower()} ~",
    lambda said: f"[phone_ring/] {said.capitalize()} . [/phone_ring]",
    lambda said: "<{}> {} [<door_slam]".format(*said.split(" ", 1)),
    lambda said: "*{}* [door_slam>] {}".format(*said.split(" ", 1)),
)


class Miniature:
    """The discs below `folder`; `wsj0` and `wsj1` are what to give as --wsj0 and --wsj1, `words` what is said."""

    def __init__(self, folder: Path, corpus: Path, layout: str = "discs") -> None:
        self.folder, self.layout, self.out = folder, layout, folder.with_name("corpus")
        self.words: dict[str, str] = {}  # by utterance
        self.samples: dict[str, np.ndarray] = {}
        self.wsj0: Path | None = folder
        self.wsj1: Path | None = folder
        if layout == "inside":
            self.wsj0, self.wsj1 = folder / "wsj0", folder / "wsj1"
        train, test = _speech(corpus, "train-quick"), _speech(corpus, "dev-quick")
        tr_s = self.speaker("zz0", "11-1.1", "wsj0/si_tr_s", train, 6)
        si_tr_s = [*self.speaker("zz1", "13-1.1", "wsj1/si_tr_s", train, 6),
                   *self.speaker("zz2", "13-16.1", "wsj1/si_tr_s", train, 6)]
        dev93 = self.speaker("zz3", "13-34.1", "wsj1/si_dt_20", test, 4)
        eval92 = self.speaker("zz4", "11-14.1", "wsj0/si_et_20", test, 4)
        eval93 = self.speaker("zz5", "13-33.1", "wsj1/si_et_h1", test, 4)
        self.write("11-2.1", "wsj0/doc/readme.txt", "This disc holds nothing of speaker 401.\n")
        self.index("11-13.1", "wsj0/doc/indices/train/tr_s_wv1.ndx", [*tr_s, "11_2_1:wsj0/si_tr_s/401/401c0201.wv1"])
        self.index("13-34.1", "wsj1/doc/indices/si_tr_s.ndx",
                   [line.replace(":", ": ") if "zz1" in line else line.replace(":", ":/") for line in si_tr_s])
        self.index("13-34.1", "wsj1/doc/indices/h1_p0.ndx", dev93)
        self.index("11-13.1", "wsj0/doc/indices/test/nvp/si_et_20.ndx", [line.removesuffix(".wv1") for line in eval92])
        self.index("13-32.1", "wsj1/doc/indices/wsj1/eval/h1_p0.ndx",
                   [line.replace("13_33_1", "13_32_1") for line in eval93])
        self.lng_modl("13-32.1", "wsj1/doc/lng_modl")

    def lng_modl(self, disc: str, folder: str) -> None:
        """The language models, as loosely built as the real ones, and the text for others."""
        plain, preamble = "A trigram\nof the miniature.\n\n", "The model comes after \\data\\:\n\\data\\\nand this.\n"
        sentences = [said for name, said in self.words.items() if name != NO_SPEECH]
        for name, order, head, pack in (("bcb20onp", 2, "", discs.lzw), ("tcb20onp", 3, plain, bytes),
                                        ("bcb05onp", 2, "", discs.lzw), ("tcb05cnp", 3, preamble, discs.lzw)):
            self.write(disc, f"{folder}/base_lm/{name}.z", pack(_arpa(sentences, order, head).encode()))
        for year in ("87", "88", "89"):
            text = "".join(f"{sentence.capitalize()}\n" for sentence in ["<art.1>", *sentences])
            self.write(disc, f"{folder}/lm_train/np_data/{year}/w7_001.z", discs.lzw(text.encode()))

    def copied(self, folder: Path) -> "Miniature":
        """A copy of the discs in another folder."""
        other = copy(self)
        other.folder = other.wsj0 = other.wsj1 = Path(shutil.copytree(self.folder, folder))
        other.out = folder.with_name("corpus")
        return other

    def path(self, disc: str, inner: str) -> Path:
        """Where a file of a disc is in this layout."""
        if disc == "13-16.1":
            inner = inner.upper()
        if self.layout in ("flat", "inside"):
            return self.folder / inner.replace("WSJ1", "wsj1")
        name = disc.replace("-", "_") if self.layout != "discs" else disc
        above = {"11": "csr_1_senn_d2", "13": "media/csr_2"}[disc[:2]] if self.layout == "nested" else ""
        return self.folder / above / name / inner

    def write(self, disc: str, inner: str, content: str | bytes) -> None:
        path = self.path(disc, inner)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def index(self, disc: str, inner: str, lines: list[str]) -> None:
        self.write(disc, inner, "".join(f"{line}\n" for line in ["; An index of the miniature.", *lines]))

    def speaker(self, name: str, disc: str, folder: str, speech: Iterator[tuple[str, np.ndarray]],
                count: int) -> list[str]:
        """Write some utterances with their transcripts; return the lines of the index."""
        lines, dots = [], []
        for number, (words, samples) in enumerate(islice(speech, count), 1):
            utterance = f"{name}c01{number:02d}"
            inner = f"{folder}/{name}/{utterance}.wv1"
            path = self.path(disc, inner)
            path.parent.mkdir(parents=True, exist_ok=True)
            discs.sphere(path, samples, CODINGS[number - 1])
            self.words[utterance], self.samples[utterance] = words, samples
            said = "~~" if utterance == NO_SPEECH else DECORATIONS[number % len(DECORATIONS)](words)
            lines.append(f"{disc.replace('-', '_').replace('.', '_')}:{inner}")
            dots.append(f"{said} ({utterance})\n")
        for place, inner in _places(disc, folder):
            self.write(place, f"{inner}/{name}/{name}c0100.dot", "".join(dots))
        return lines


def _places(disc: str, folder: str) -> list[tuple[str, str]]:
    """Discs and folders that hold a speaker's transcripts."""
    if folder == "wsj0/si_tr_s":
        return [(copy, "wsj0/transcrp/dots/si_tr_s") for copy in ("11-4.1", "11-10.1")]
    if "si_et" in folder:
        return [(disc, folder)]
    return [("13-34.1", folder.replace("wsj1/", "wsj1/trans/wsj1/"))]


def _speech(corpus: Path, subset: str) -> Iterator[tuple[str, np.ndarray]]:
    """Words and (samples,) int16 of the utterances of a subset of the tiny corpus, over and over."""
    found = []
    for path in sorted((corpus / "LibriSpeech" / subset).rglob("*.trans.txt")):
        for line in path.read_text().splitlines():
            name, words = line.split(" ", 1)
            found.append((words, soundfile.read(path.parent / f"{name}.flac", dtype="int16")[0]))
    return cycle(found)


def _arpa(sentences: list[str], order: int, preamble: str) -> str:
    """A language model with blanks between its fields and with n-grams of <UNK>, behind a preamble."""
    with TemporaryDirectory() as folder:
        ngram.train(sentences, path := Path(folder, "arpa"), order)
        lines = path.read_text().splitlines()
    count = int(lines[1].partition("=")[2]) + 1
    first = lines.index("\\1-grams:") + 1
    lines = [*lines[:1], f"ngram 1={count}", *lines[2:first], "-3.5 <UNK> -0.1", *lines[first:]]
    return preamble + "\n".join(lines).replace("\t", " ") + "\n"
