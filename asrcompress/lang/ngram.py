"""N-gram language models: read and check ARPA files, cut them down to a vocabulary, train them.

The ARPA format: https://www.speech.sri.com/projects/srilm/manpages/ngram-format.5.html
"""

import contextlib
import gzip
import io
import math
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple, NoReturn, cast

from asrcompress.errors import UserError
from asrcompress.files import atomic
from asrcompress.lang import textfile

SENTENCE = ("<s>", "</s>")
ZERO = -99.0  # log10 of no probability, as ARPA files write it
HIGHEST = 0.001  # log10 of a probability, with room for rounding
UNSEEN_SHARE = 0.01  # of the 1-gram probability, for all words together to which the model gives none


class Kept(NamedTuple):
    """What `restrict` kept of a model: n-grams of each order; n-grams and words left out; words raised from zero."""

    ngrams: list[int]
    dropped_ngrams: int
    dropped_words: int
    raised: int

    def __str__(self) -> str:
        orders = ", ".join(f"{count} {n}-grams" for n, count in enumerate(self.ngrams, 1))
        raised = f"; {self.raised} words of probability 0 raised to share {UNSEEN_SHARE:.0%}" if self.raised else ""
        left_out = f"{self.dropped_ngrams} n-grams with {self.dropped_words} words outside the lexicon"
        return f"{orders}; left out {left_out}{raised}"


class _Lines:
    """The lines of an ARPA file that are not blank, with the place for messages."""

    def __init__(self, path: Path | str) -> None:
        self.path, self.number, self._lines = path, 0, textfile.lines(path, "the language model")

    def __next__(self) -> str:
        found = next(self._lines, None)
        if found is None:
            self.wrong("the file ends before \\end\\")
        self.number, line = found
        return line

    def expect(self, wanted: str) -> None:
        line = next(self)
        if line != wanted:
            self.wrong(f"'{line[:40]}' where {wanted} is expected")

    def number_of(self, field: str, most: float) -> str:
        """The field, or "-99" where it says that there is no probability; UserError where it is NaN or above `most`."""
        try:
            value = float(field)
        except ValueError:
            self.wrong(f"'{field[:40]}' where a number is expected")
        if not value <= most or "_" in field or not field.isascii():  # Python reads 1_0 as 10
            self.wrong(f"'{field[:40]}' where a number of at most {most:g} is expected")
        return field if value > ZERO else f"{ZERO:g}"

    def wrong(self, what: str) -> NoReturn:
        raise textfile.wrong(self.path, self.number, what, "give a whole ARPA language model") from None


def ngrams(path: Path | str, max_order: int = 0) -> Iterator[tuple[int, list[str]]]:
    """Yield (order, [log10 probability, word, ..., back-off weight if any]) for every n-gram, checking as it goes.

    Plain or gzipped. Ends after `max_order` where one is given. What is -inf, or below -99, is read as -99. Errors:
    UserError, with file and line, where it is no ARPA, or a number is NaN or too large to be one.
    """
    lines = _Lines(path)
    counts = _head(lines)
    for order, count in enumerate(counts[:max_order or None], 1):
        if order > 1:
            lines.expect(f"\\{order}-grams:")
        for _ in range(count):
            fields = textfile.fields(next(lines))
            if not order + 1 <= len(fields) <= order + 2:
                lines.wrong(f"'{' '.join(fields)[:40]}' where a {order}-gram is expected")
            fields[0] = lines.number_of(fields[0], HIGHEST)
            if len(fields) == order + 2:
                fields[-1] = lines.number_of(fields[-1], -ZERO)
            yield order, fields
    if not 0 < max_order < len(counts):
        lines.expect("\\end\\")


def _head(lines: _Lines) -> list[int]:
    """How many n-grams of order 1, 2, ... the head promises; reads on to the first n-gram."""
    counts: list[int] = []
    lines.expect("\\data\\")
    while (line := next(lines)) != "\\1-grams:":
        found = re.fullmatch(r"ngram\s+(\d+)\s*=\s*(\d+)", line)
        if not found or int(found[1]) != len(counts) + 1:
            lines.wrong(f"'{line[:40]}' where 'ngram {len(counts) + 1}=...' is expected")
        counts.append(int(found[2]))
    return counts


def restrict(arpa: Path | str, out: Path | str, words: Collection[str], max_order: int = 0) -> Kept:
    """Write `arpa` to `out` (plain) without the n-grams that hold a word outside `words`; say how many went.

    So go n-grams that begin a sentence after their first word or end one before their last, and reserved symbols.
    Their probability is lost, as in kaldi's arpa2fst, and not spread over the rest. The file is checked on the way.
    Words listed with probability 0 (count cut-offs leave such) could never be recognised: together they get
    UNSEEN_SHARE.
    UserError where no word is left: most often one side is in lower case.
    """
    keep = set(words).difference(textfile.RESERVED).union(SENTENCE)
    kept: list[list[str]] = [[]]
    dropped, unknown = 0, set[str]()
    for order, fields in ngrams(arpa, max_order):
        while order > len(kept):
            kept.append([])
        context = fields[1:order + 1]
        if keep.issuperset(context) and SENTENCE[0] not in context[1:] and SENTENCE[1] not in context[:-1]:
            backoff = f"\t{fields[-1]}" if len(fields) > order + 1 else ""
            kept[order - 1].append(f"{fields[0]}\t{' '.join(context)}{backoff}\n")
        else:
            dropped += 1
            unknown.update(word for word in context if word not in keep)
    check_sentences(arpa, {line.split()[1] for line in kept[0]})
    if len(kept[0]) <= len(SENTENCE):
        raise UserError(f"no word of {arpa} is in the lexicon; write both in the same case")
    zero = [i for i, line in enumerate(kept[0]) if float(line.split()[0]) <= ZERO and line.split()[1] != "<s>"]
    for i in zero:
        kept[0][i] = f"{math.log10(UNSEEN_SHARE / len(zero)):.7f}\t{kept[0][i].split(maxsplit=1)[1]}"
    # After --max-order the last order still has back-off weights, where kaldilm's reader aborts.
    kept[-1] = ["\t".join(line.rstrip("\n").split("\t")[:2]) + "\n" for line in kept[-1]]
    write(out, kept)
    return Kept([len(lines) for lines in kept], dropped, len(unknown), len(zero))


def check_sentences(arpa: Path | str, words: Collection[str]) -> None:
    """UserError unless the 1-grams of the file begin and end sentences."""
    for word in SENTENCE:
        if word not in words:
            raise UserError(f"{arpa} has no 1-gram {word}; give a language model of whole sentences")


def write(out: Path | str, orders: Sequence[Sequence[str]]) -> None:
    """Write the lines of each order as an ARPA file, gzipped where its name ends in .gz."""
    opened = gzip.open if str(out).endswith(".gz") else open
    with atomic(out) as temporary, cast(IO[str], opened(temporary, "wt", encoding="utf-8")) as stream:
        stream.write("\\data\\\n" + "".join(f"ngram {n}={len(lines)}\n" for n, lines in enumerate(orders, 1)))
        for n, lines in enumerate(orders, 1):
            stream.write(f"\n\\{n}-grams:\n")
            stream.writelines(lines)
        stream.write("\n\\end\\\n")


def _never_start(unigrams: dict[str, float]) -> None:
    """Share out what `<s>` has, which is never predicted: without longer n-grams, it is counted as a word."""
    rest = 1 - unigrams.get(SENTENCE[0], 0.0)
    for word, share in unigrams.items():
        unigrams[word] = 0.0 if word == SENTENCE[0] else share / rest


def train(sentences: Sequence[str], out: Path | str, order: int = 3, min_counts: Sequence[int] = ()) -> None:
    """Train a Kneser-Ney model with kaldingram and write it as a plain ARPA file.

    `min_counts[n - 1]` is the count below which an n-gram is left out, 0 where the list is shorter. Cut-offs are the
    only pruning: kaldingram's entropy pruning fails on models trained with cut-offs. Errors: UserError where kaldingram
    is not installed or no sentence has a word.
    """
    try:
        from kaldingram.train import NgramCounts
    except ImportError:
        raise UserError("training a language model needs the package kaldingram; install it with pip, "
                        "or give an ARPA file") from None
    if not any(sentence.split() for sentence in sentences):
        raise UserError("there is no sentence to train the language model on; give a text file with words")
    with contextlib.redirect_stderr(io.StringIO()):  # it shows a progress bar for every order of every step
        counts = NgramCounts(order)
        for sentence in sentences:
            counts.add_raw_counts_from_line(" ".join(sentence.split()))
        if any(min_counts):
            counts.apply_count_cutoffs([*min_counts, *[0] * order][:order])
        counts.cal_discounting_constants()
        counts.cal_f()
        _never_start(counts.counts[0][()].word_to_f)
        counts.cal_bow()
        with atomic(out) as temporary, temporary.open("w", encoding="utf-8") as stream:
            counts.print_as_arpa(stream)
