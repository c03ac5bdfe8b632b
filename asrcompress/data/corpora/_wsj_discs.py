"""The discs of WSJ0 and WSJ1 as people keep them, and the index files that say which utterances a set has.

Only the path from `wsj0/` or `wsj1/` on counts, in any mix of cases, so that these are all the same:

    DIR/11-13.1/wsj0/...                a folder per disc, spelt with -, _ or .
    DIR/csr_1_senn_d2/11-13.1/wsj0/...  the same, one or two folders deeper
    DIR/wsj0/... or DIR = .../wsj0      all discs copied into one folder

The sets, with their index files, are those of Kaldi's egs/wsj/s5/local/wsj_data_prep.sh.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from asrcompress.errors import UserError

# What the Linguistic Data Consortium calls the two corpora; C has the other microphone alone.
RELEASES = {"wsj0": "LDC93S6A or LDC93S6B", "wsj1": "LDC94S13A or LDC94S13B"}
OTHER_MICROPHONE = {"wsj0": "LDC93S6C", "wsj1": "LDC94S13C"}
TR_S, SI_TR_S = "wsj0/doc/indices/train/tr_s_wv1.ndx", "wsj1/doc/indices/si_tr_s.ndx"
_INNER = re.compile(r"(?:^|/)(wsj[01]/(?:doc|trans|transcrp|s[di]_[^/]*)/.+)")
_DISC = re.compile(r"(1[13])[-_.](\d\d?)[-_.](\d)")
_ENTRY = re.compile(r"(\d+)_(\d+)_(\d+)\s*:\s*/?\s*(wsj[01]/[\w./-]+/(\w{8}))(?:\.wv1)?", re.IGNORECASE | re.ASCII)
_DEEPEST = 4  # folders between DIR and the last one that may be wsj0 or wsj1
_NOT_THERE = "11-2.1:wsj0/si_tr_s/401/"  # listed in tr_s_wv1.ndx, but not on the disc


class Set(NamedTuple):
    """Inner paths of the index files with the discs that have them, and the official counts where they are known."""

    indices: dict[str, str]
    utterances: int
    words: int | None = None


SETS = {
    "train_si284": Set({TR_S: "11-13.1", SI_TR_S: "13-34.1"}, 37414),  # 37,416 are listed, two of them without speech
    "train_si84": Set({TR_S: "11-13.1"}, 7138),
    "dev93": Set({"wsj1/doc/indices/h1_p0.ndx": "13-34.1"}, 503, 8234),
    "dev93_5k": Set({"wsj1/doc/indices/h2_p0.ndx": "13-34.1"}, 513),
    "eval92": Set({"wsj0/doc/indices/test/nvp/si_et_20.ndx": "11-13.1"}, 333, 5643),
    "eval92_5k": Set({"wsj0/doc/indices/test/nvp/si_et_05.ndx": "11-13.1"}, 330),
    "eval93": Set({"wsj1/doc/indices/wsj1/eval/h1_p0.ndx": "13-32.1"}, 213),
    "eval93_5k": Set({"wsj1/doc/indices/wsj1/eval/h2_p0.ndx": "13-32.1"}, 215),
}


class Entry(NamedTuple):
    """An utterance of an index file: its id, the disc that it is said to be on, and its inner path."""

    id: str
    disc: str
    inner: str


class Discs:
    """Every file below the folders of --wsj0 and --wsj1, by its inner path in lower case."""

    def __init__(self, wsj0: Path | None, wsj1: Path | None, say: Callable[[str], None] = print) -> None:
        """Index the folders; what is there twice is said. Errors: UserError where one is not what it should be."""
        self.folders = {release: folder for release, folder in (("wsj0", wsj0), ("wsj1", wsj1)) if folder}
        self._paths: dict[str, list[Path]] = {}
        roots: dict[Path, None] = {}
        for release, folder in self.folders.items():
            found = dict(_walk(folder))
            _check_release(release, folder, set(found.values()))
            for path, inner in found.items():
                copies = self._paths.setdefault(inner, [])
                if path not in copies:
                    copies.append(path)
                roots[path.parents[inner.count("/")]] = None
        _say_twice(roots, say)

    def find(self, inner: str) -> Path | None:
        """The file with that inner path, such as "wsj1/doc/lng_modl/base_lm/tcb20onp.z", or its first copy."""
        copies = self._paths.get(inner.lower())
        return copies[0] if copies else None

    def files(self, prefix: str) -> list[Path]:
        """All files below an inner folder, sorted by inner path, without copies."""
        below = prefix.lower().rstrip("/") + "/"
        return [self._paths[inner][0] for inner in sorted(self._paths) if inner.startswith(below)]

    def dots(self, ids: Iterable[str]) -> list[Path]:
        """The transcript files of some utterances, with every copy: those of a session have one, which ends in 00."""
        wanted = {f"{name[:6]}00.dot" for name in ids}
        return [path for inner, copies in self._paths.items() if inner.rpartition("/")[2] in wanted for path in copies]

    def utterances(self, inner: str, disc: str) -> list[Entry]:
        """What an index file lists. Errors: UserError where it is missing, and for a line that is not understood."""
        if path := self.find(inner):
            return [entry for entry in entries(path) if not f"{entry.disc}:{entry.inner}".startswith(_NOT_THERE)]
        release = inner[:4]
        where = (f"is not below --{release} {self.folders[release]}; copy the disc there" if release in self.folders
                 else f"is missing; give the folder with the discs as --{release}")
        raise UserError(f"the index file {inner} of disc {disc} ({RELEASES[release]}) {where}")


def _walk(top: Path) -> Iterator[tuple[Path, str]]:
    """Every file below a folder that belongs to a disc, with its inner path. Links are followed, but never upwards."""
    def stop(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}); repair the copy of the disc")

    top = Path(os.path.abspath(top))
    for folder, inner_folders, names in os.walk(top, followlinks=True, onerror=stop if top.is_dir() else None):
        relative = "/".join((top.name, *Path(folder).relative_to(top).parts)).lower()
        real, above = os.path.realpath(folder), map(os.path.realpath, Path(folder).parents)
        if real in above or (relative.count("/") > _DEEPEST and not _INNER.search(f"{relative}/.")):
            inner_folders.clear()
            continue
        inner_folders.sort()
        for name in sorted(names):
            if found := _INNER.search(f"{relative}/{name.lower()}"):
                yield Path(folder, name), found[1]


def _check_release(release: str, folder: Path, inners: set[str]) -> None:
    """UserError where a folder does not hold the release that it was given for."""
    mine = [inner for inner in inners if inner.startswith(f"{release}/")]
    other = "wsj1" if release == "wsj0" else "wsj0"
    if not mine and inners:
        raise UserError(f"below --{release} {folder} is {other}/ and no {release}/; --wsj0 and --wsj1 may be swapped")
    if not mine:
        index = TR_S if release == "wsj0" else SI_TR_S
        what = f"holds no disc of {RELEASES[release]}" if folder.is_dir() else "is no folder"
        raise UserError(f"--{release} {folder} {what}; give the folder that holds the discs: {index} is looked for "
                        "below it, in folders such as 11-13.1 or without them")
    if not any(inner.endswith(".wv1") for inner in mine) and any(inner.endswith(".wv2") for inner in mine):
        raise UserError(f"--{release} {folder} has only .wv2 files, those of the other microphone "
                        f"({OTHER_MICROPHONE[release]}); give {RELEASES[release]}")


def _say_twice(roots: Iterable[Path], say: Callable[[str], None]) -> None:
    first: dict[str, Path] = {}
    for root in roots:
        if found := _DISC.fullmatch(root.name):
            name = "{}-{}.{}".format(*found.groups())
            if name in first:
                say(f"disc {name} is there twice; {first[name]} is used before {root}")
            first.setdefault(name, root)


def entries(path: Path) -> list[Entry]:
    """The utterances of an index file: lines `11_1_1:wsj0/si_tr_s/01i/01ic0201.wv1`, and `;` before comments.

    Blanks or a slash may follow the colon, and `.wv1` may be left out. Errors: UserError for any other line.
    """
    found = []
    for number, line in lines(path):
        if line.startswith(";"):
            continue
        if not (entry := _ENTRY.fullmatch(line)):
            raise UserError(f"{path}, line {number}: '{line}' is not DISC:PATH, such as "
                            "11_1_1:wsj0/si_tr_s/01i/01ic0201.wv1; get a whole copy of the disc")
        release, disc, side, inner, name = entry.groups()
        # The Nov'93 indices say 13_32_1 for what is on 13-33.1.
        disc = "33" if (release, disc) == ("13", "32") else disc
        found.append(Entry(name.lower(), f"{release}-{disc}.{side}", f"{inner.lower()}.wv1"))
    return found


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, line) of every line of a disc's text file that is not blank.

    It is read as Latin-1, which takes every byte: nobody can mend what is pressed on a disc. Errors: UserError where
    the file cannot be read.
    """
    try:
        text = path.read_bytes().decode("latin-1")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); copy the disc again") from None
    for number, line in enumerate(text.split("\n"), 1):
        if line := line.strip(" \t\r\x1a\0"):
            yield number, line
