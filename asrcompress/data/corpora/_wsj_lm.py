"""The language models of the Wall Street Journal's discs, as ARPA files under Kaldi's names.

    bg, tg        the discs' open-vocabulary bigram and trigram of 20,000 words
    bg_5k, tg_5k  those of 5,000 words
    tgpr(_5k)     tg(_5k) pruned as IRSTLM does, at 1e-7
    bd_*          made here of the discs' text: `_wsj_bd`

The discs hold them packed by compress(1), or plain in spite of the name, after a preamble, and parted by blanks.
"""

import gzip
import subprocess
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO, cast

from asrcompress.errors import UserError
from asrcompress.files import atomic
from asrcompress.lang import backoff, pruning
from asrcompress.lang.ngram import ngrams

FOLDERS = ("wsj1/doc/lng_modl/base_lm", "wsj0/doc/lng_modl/base_lm")
FILES = {"bg": "bcb20onp.z", "tg": "tcb20onp.z", "bg_5k": "bcb05onp.z", "tg_5k": "tcb05cnp.z"}
PRUNED = {"tgpr": "tg", "tgpr_5k": "tg_5k"}
THRESHOLD = 1e-7
Find = Callable[[str], Path | None]


def distributed(find: Find, out: Path, names: Collection[str], warn: Callable[[str], None] = print) -> None:
    """Write OUT/NAME.arpa.gz for those of `names` that the discs hold or that are pruned from those; none twice.

    `find` gives the file of an inner path such as wsj1/doc/lng_modl/base_lm/tcb20onp.z, or None. Errors: UserError
    where a file is missing, damaged, or holds no language model.
    """
    for name in sorted({PRUNED.get(name, name) for name in names} & FILES.keys()):
        if not (out / f"{name}.arpa.gz").exists():
            _rewrite(_file(find, FILES[name]), out / f"{name}.arpa.gz")
            warn(f"{name}: language model of {FILES[name]}")
    for name in sorted(PRUNED.keys() & set(names)):
        if not (out / f"{name}.arpa.gz").exists():
            model = backoff.read(out / f"{PRUNED[name]}.arpa.gz")
            pruned = pruning.prune(model, THRESHOLD)
            backoff.save(pruned, out / f"{name}.arpa.gz")
            warn(f"{name}: {backoff.size(pruned):,} of {backoff.size(model):,} n-grams, pruned at {THRESHOLD:g}")


def _file(find: Find, name: str) -> Path:
    found = next(filter(None, (find(f"{folder}/{name}") for folder in FOLDERS)), None)
    if found is None:
        raise UserError(f"the discs hold no {FOLDERS[0]}/{name}, which is on disc 13-32.1 of WSJ1 (a copy is on "
                        "11-13.1 of WSJ0); give that disc, or leave its language models out of --lms")
    return found


def lines(path: Path) -> Iterator[str]:
    """The lines of a file that is packed by compress(1) or gzip, or plain.

    Errors: UserError where it cannot be unpacked.
    """
    try:
        with path.open("rb") as packed:
            process = subprocess.Popen(["gzip", "-cdf"], stdin=packed, stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE, text=True, encoding="latin-1")
    except OSError as error:
        raise UserError(f"{path} cannot be unpacked ({error}); it has to be a file that can be read, and the program "
                        "gzip has to be installed") from None
    with process:
        assert process.stdout and process.stderr
        yield from process.stdout
        said = process.stderr.read().strip()
    if process.returncode:
        raise UserError(f"{path} cannot be unpacked ({said}); get a whole copy of it")


def _rewrite(source: Path, out: Path) -> None:
    """Write what follows the last line \\data\\ of `source`, with tabs between the fields.

    A preamble may hold such a line of its own. gzip ends without an error where a file of compress(1) was cut short, so
    the end is looked for, and the counts are checked.
    """
    with atomic(out) as temporary:
        last, ended = 0, False
        for number, line in enumerate(lines(source), 1):
            last = number if line.strip() == "\\data\\" else last
            ended = line.strip() == "\\end\\" or ended and not line.strip()
        if not last:
            raise UserError(f"{source} holds no ARPA language model: no line is \\data\\; get another copy of it")
        if not ended:
            raise UserError(f"{source} ends before \\end\\; get a whole copy of it")
        with cast(IO[str], gzip.open(temporary, "wt", encoding="utf-8", compresslevel=6)) as stream:
            order = 0
            for number, line in enumerate(lines(source), 1):
                if number < last:
                    continue
                fields = line.split()
                order += line.startswith("\\") and line.rstrip().endswith("-grams:")
                if order and fields and not line.startswith("\\"):
                    line = "\t".join([fields[0], " ".join(fields[1:order + 1]), *fields[order + 1:]]) + "\n"
                stream.write(line)
        try:
            for _ in ngrams(temporary):
                pass
        except UserError as error:
            raise UserError(f"{source}: {str(error).replace(str(temporary), 'its language model')}") from None
