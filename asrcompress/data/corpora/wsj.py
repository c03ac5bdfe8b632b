"""The Wall Street Journal corpora WSJ0 and WSJ1 (LDC93S6A/B, LDC94S13A/B), as `asrcompress wsj` leaves them.

    FOLDER/audio/SPEAKER/ID.flac   16 kHz
    FOLDER/SET.jsonl               {"id", "speaker", "words"}, an utterance a line; SET.raw has the text of the discs
    FOLDER/SET_partial.jsonl       a set that lacks what the discs named in SET_partial.missing hold
    FOLDER/lm/                     NAME.arpa.gz and lexicon.txt

Paul and Baker, "The design for the Wall Street Journal-based CSR corpus", HLT 1992.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from asrcompress.data.corpora import librispeech
from asrcompress.data.corpora._wsj_discs import SETS
from asrcompress.data.corpora.base import Search, Subsets
from asrcompress.errors import UserError
from asrcompress.files import read_jsonl, require_file

if TYPE_CHECKING:
    from lhotse import CutSet, MonoCut

SAMPLING_RATE = librispeech.SAMPLING_RATE
AUDIO, LM, LEXICON = "audio", "lm", "lexicon.txt"
PARTIAL = "_partial"
# The first one that is there chooses the scales. Names are Kaldi's: tg rescores what tgpr found.
RESCORES = {"tgpr": None, "tg": "tgpr", "bd_tgpr": None, "bd_fg": "bd_tgpr", "bg": None, "tgpr_5k": None,
            "tg_5k": "tgpr_5k", "bg_5k": None}


def download(folder: Path, edition: str) -> None:
    """There is nothing to fetch. Errors: UserError, always."""
    raise UserError("the Wall Street Journal corpora are licensed by the LDC (LDC93S6B and LDC94S13B) and not to be "
                    "downloaded; give the folders of your discs with --wsj0 and --wsj1")


def subsets(folder: Path) -> Subsets:
    """The sets that are there, whole ones before partial ones; one to train on, since train_si284 contains train_si84.
    """
    require_file(folder, "the corpus folder")
    there = [name + end for end in ("", PARTIAL) for name in SETS if (folder / f"{name}{end}.jsonl").exists()]
    train = [name for name in there if name.startswith("train_")]
    return Subsets(train[:1], [name for name in there if name not in train])


def prepare(folder: Path, subset: str, warn: Callable[[str], None] = print) -> "CutSet":
    """The set's cuts, one an utterance.

    An utterance that cannot be used is named through `warn` and left out. Errors: UserError where the set is missing,
    partial or damaged, and where nothing of it can be used.
    """
    path = require_file(folder, "the corpus folder") / f"{subset}.jsonl"
    if not path.exists():
        raise UserError(_missing(folder, subset))
    cuts: list[MonoCut] = []
    left_out = []
    for number, row in enumerate(read_jsonl(path), 1):
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("id", "speaker", "words")):
            raise UserError(f"{path}, line {number} has no id, speaker and words; remove it, and run `asrcompress wsj`")
        flac = folder / AUDIO / row["speaker"] / f"{row['id']}.flac"
        if problem := librispeech.fault(flac, row["words"]):
            left_out.append(f"{row['id']} {problem}")
        else:
            cuts.append(librispeech.cut(flac, row["words"], row["speaker"], len(cuts)))
    return librispeech.usable(cuts, left_out, subset, folder, warn)


def _missing(folder: Path, subset: str) -> str:
    if (found := folder / f"{subset}{PARTIAL}.missing").exists():
        missing = "; ".join(found.read_text(encoding="utf-8").splitlines())
        return (f"{subset} is not whole in {folder}: {missing}; give them to `asrcompress wsj`, "
                f"or ask for {subset}{PARTIAL}")
    return f"{folder} has no set {subset}; import it from the discs with `asrcompress wsj`"


def searches(folder: Path) -> list[Search]:
    """The searches whose language models were imported, under Kaldi's names."""
    arpa = {name: folder / LM / f"{name}.arpa.gz" for name in RESCORES}
    return [Search(name, arpa[name], first) for name, first in RESCORES.items()
            if arpa[name].exists() and (first is None or arpa[first].exists())]


def lexicon(folder: Path) -> Path:
    """The path of the lexicon. Errors: UserError where it is missing."""
    path = folder / LM / LEXICON
    if not path.exists():
        raise UserError(f"{path} is missing; make it with `asrcompress wsj --lms \"tgpr tg\"`")
    return path
