"""Test sets in parts, so that one decoding is the work of several jobs, as Kaldi's split folders are.

Part 2 of 4 of a set is every fourth utterance, a prepared set of its own: data/parts/SET.2of4.
"""

import gzip
from itertools import islice
from pathlib import Path

from asrcompress import files
from asrcompress.data import utterances
from asrcompress.lang import text
from asrcompress.recipe.data import DATA

TEXTS = ("hyp.txt", "tokens.txt", "ref.tokens.txt")  # what a search may write


def numbers(parts: int) -> range:
    """The parts of a set, from 1; none where it stays whole."""
    return range(1, parts + 1) if parts > 1 else range(0)


def of(test_set: str, parts: int) -> int:
    """Into how many parts a prepared set goes: none is empty. Errors: UserError where the set is not prepared."""
    lines = utterances.lines(files.require_file(DATA / f"{test_set}.jsonl.gz", "the prepared set"))
    return sum(1 for _ in islice(lines, parts))


def name(part: int, parts: int) -> str:
    """`2of4`."""
    return f"{part}of{parts}"


def split(test_set: str, part: int, parts: int) -> str:
    """Write a part of a prepared set, unless it is there and newer; its name as a set of `data`.

    Errors: UserError where the set is not prepared.
    """
    made = f"parts/{test_set}.{name(part, parts)}"
    whole, manifest = DATA / f"{test_set}.jsonl.gz", DATA / f"{made}.jsonl.gz"
    age = files.require_file(whole, "the prepared set").stat().st_mtime_ns
    if not manifest.exists() or manifest.stat().st_mtime_ns < age:
        lines = list(islice(utterances.lines(whole), part - 1, None, parts))
        texts = text.read(DATA / f"{test_set}.text")
        ids = [utterances.cut_of(line).supervisions[0].id for line in lines]
        text.write(DATA / f"{made}.text", {one: texts[one] for one in ids})
        with files.atomic(manifest) as temporary, gzip.open(temporary, "wb") as stream:
            stream.writelines(lines)
    return made


def join(at: Path, search: str, parts: int) -> None:
    """Write into AT/SEARCH what all parts of a search say together; its real-time factor is their mean.

    Errors: UserError where a part is missing.
    """
    folders = [at / "parts" / name(part, parts) / search for part in range(1, parts + 1)]
    for file in (file for file in TEXTS if (folders[0] / file).exists()):
        joined: dict[str, str] = {}
        for folder in folders:
            joined |= text.read(files.require_file(folder / file, "the part of a decoding"))
        text.write(at / search / file, joined)
        reports = [files.read_json(folder / f"{file}.json") for folder in folders if (folder / f"{file}.json").exists()]
        if reports:
            mean = sum(report["rtf"] for report in reports) / len(reports)
            files.write_json(at / search / f"{file}.json", {**reports[0], "rtf": mean})
