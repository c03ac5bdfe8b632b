"""The big-dictionary language models of Kaldi's recipe, bd_tgpr and bd_fg, from the text on the discs of WSJ1.

    bd_fg    4-grams, to rescore with
    bd_tgpr  3-grams, pruned to about as many n-grams as Kaldi's

The first sentences are held out, and the perplexity of the models on them is said.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from asrcompress.data.corpora._wsj_lm import lines
from asrcompress.errors import UserError
from asrcompress.lang import backoff, ngram, pruning

FOLDER = "wsj1/doc/lng_modl/lm_train/np_data"
NAMES = ("bd_tgpr", "bd_fg")
HELD_OUT = 10_000     # sentences, as in Kaldi's recipe
PRUNE_TO = 1_450_000  # n-grams of Kaldi's pruned trigram
MIN_COUNTS = (0, 0, 2, 2)
UNKNOWN = "<UNK>"


def sentences(files: Callable[[str], list[Path]], known: Collection[str]) -> Iterator[str]:
    """The sentences of the text, in upper case: lines of markup go, and a full stop ends a sentence unless a word
    that `known` has holds it.

    `files` gives the files below an inner folder. Errors: UserError where there is no text.
    """
    found = [path for path in files(FOLDER) if path.suffix.lower() == ".z"]
    if not found:
        raise UserError(f"the discs hold no text in {FOLDER}, of which bd_tgpr and bd_fg are made; give disc 13-32.1 "
                        "of WSJ1, or a language model with --bd-arpa")
    for path in found:
        for line in lines(path):
            if line.startswith("<"):
                continue
            sentence: list[str] = []
            for word in line.upper().split():
                if word not in known and word.endswith(".") and word.count(".") == 1:
                    if sentence := [*sentence, word[:-1]] if word != "." else sentence:
                        yield " ".join(sentence)
                    sentence = []
                else:
                    sentence.append(word)
            if sentence:
                yield " ".join(sentence)


def words(text: Sequence[str], known: Collection[str]) -> list[str]:
    """The words of the text that want a pronunciation: seen twice, with a letter and without a digit."""
    counts = Counter(word for sentence in text for word in sentence.split())
    return sorted(word for word, count in counts.items()
                  if count >= 2 and word not in known and re.search("[A-Z]", word) and not re.search("[0-9]", word))


def train(text: Sequence[str], lexicon: Collection[str], out: Path, names: Collection[str],
          held_out: int = HELD_OUT, warn: Callable[[str], None] = print) -> None:
    """Write those of bd_tgpr and bd_fg that are asked for; words that `lexicon` lacks are one, <UNK>. The perplexity of
    the first `held_out` sentences, which are not trained on, is said.

    Errors: UserError where the text is no longer than what is held out.
    """
    if len(text) <= held_out:
        raise UserError(f"the text of {FOLDER} has {len(text):,} sentences, of which {held_out:,} are held out; "
                        "get whole copies of its files")
    mapped = [" ".join(word if word in lexicon else UNKNOWN for word in sentence.split()) for sentence in text]
    for name, order in (("bd_tgpr", 3), ("bd_fg", 4)):
        path = out / f"{name}.arpa.gz"
        if name not in names or path.exists():
            continue
        with tempfile.TemporaryDirectory() as folder:
            ngram.train(mapped[held_out:], Path(folder, "whole.arpa"), order, MIN_COUNTS[:order])
            _write(backoff.read(Path(folder, "whole.arpa")), path, mapped[:held_out], warn)


def given(arpa: Path, out: Path, names: Collection[str], warn: Callable[[str], None] = print) -> None:
    """Write those of bd_tgpr and bd_fg that are asked for from a language model that was made elsewhere."""
    for name, order in (("bd_tgpr", 3), ("bd_fg", 4)):
        if name in names and not (out / f"{name}.arpa.gz").exists():
            _write(backoff.read(arpa, order), out / f"{name}.arpa.gz", [], warn)


def _write(model: backoff.Model, out: Path, held_out: Sequence[str], warn: Callable[[str], None]) -> None:
    if out.name.startswith("bd_tgpr") and backoff.size(model) > PRUNE_TO > len(model.words):
        model, threshold = pruning.prune_to(model, PRUNE_TO)
        warn(f"bd_tgpr: pruned at {threshold:.3g}")
    backoff.save(model, out)
    said = f"; perplexity {backoff.perplexity(model, held_out)[0]:.1f} of the text held out" if held_out else ""
    warn(f"{out.name}: {backoff.described(model)}{said}")
