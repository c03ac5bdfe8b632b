"""Scoring: word or token error rate with a bootstrap interval, and the alignment behind it.

The bootstrap resamples utterances (Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance
evaluation", ICASSP 2004) through kaldialign's `bootstrap_wer_ci`, with a fixed seed: the same texts, the same figures.
"""

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asrcompress.errors import UserError
from asrcompress.files import atomic, require_file
from asrcompress.lang import text
from asrcompress.options import require

REPLICATIONS = 10000
SWEPT = re.compile(r"ac(\d[\d.]*)(?:-lm(\d[\d.]*))?(?:-bp(-?\d[\d.]*))?\.txt")  # as `asrcompress search` names them
GAP = "***"  # what an alignment file shows where one side has no word

Pairs = list[tuple[str, str]]  # (reference word, hypothesis word), "" on the side that has none


@dataclass
class Score:
    """Error counts over a test set. `wer` is in percent; `unit` says of what: words or tokens."""

    unit: str
    words: int
    sub: int
    ins: int
    dels: int
    ci95: tuple[float, float] | None
    p_better_than_dense: float | None
    missing: list[str]
    pairs: dict[str, Pairs] = field(repr=False)

    @property
    def wer(self) -> float:
        """Errors per hundred words (or tokens) of the references."""
        return 100 * (self.sub + self.ins + self.dels) / self.words

    def row(self) -> dict[str, Any]:
        """The keys of a result row. A token error rate is `ter` and leaves `wer` null: none is read as the other."""
        rate = round(self.wer, 3)
        return {"wer": rate if self.unit == "word" else None, "ter": rate if self.unit == "token" else None,
                "words": self.words, "sub": self.sub, "ins": self.ins, "del": self.dels,
                "ci95": [round(bound, 3) for bound in self.ci95] if self.ci95 else None,
                "p_better_than_dense": self.p_better_than_dense}

    def line(self) -> str:
        """One line in Kaldi's manner."""
        name = "WER" if self.unit == "word" else "TER"
        out = (f"%{name} {self.wer:.2f} [ {self.sub + self.ins + self.dels} / {self.words}, {self.ins} ins, "
               f"{self.dels} del, {self.sub} sub ]")
        if self.ci95:
            out += f" 95% [{self.ci95[0]:.2f}, {self.ci95[1]:.2f}]"
        if self.p_better_than_dense is not None:
            out += f" p(better than dense) {self.p_better_than_dense:.3f}"
        return out


def score(refs: dict[str, str], hyps: dict[str, str], dense: dict[str, str] | None = None, unit: str = "word") -> Score:
    """Score `hyps` (utterance -> text) against `refs`; `dense` are the dense model's hypotheses of the same utterances.

    An utterance without a hypothesis counts as an empty one (all its words deleted) and is listed in `missing`.
    UserError where a hypothesis has no reference, or the references hold no word.
    """
    import kaldialign

    check_words(refs)
    check_ids(refs, hyps)
    keys = sorted(refs)
    words = {key: refs[key].split() for key in keys}
    pairs = {key: kaldialign.align(words[key], hyps.get(key, "").split(), "") for key in keys}
    flat = [pair for key in keys for pair in pairs[key]]
    return Score(unit=unit, words=sum(map(len, words.values())), sub=sum(bool(r and h and r != h) for r, h in flat),
                 ins=sum(not r for r, _ in flat), dels=sum(not h for _, h in flat), ci95=interval(refs, hyps),
                 p_better_than_dense=None if dense is None else p_better(refs, hyps, dense),
                 missing=[key for key in keys if key not in hyps], pairs=pairs)


def check_words(refs: dict[str, str]) -> None:
    """Errors: UserError where the references hold no word."""
    require(any(map(str.split, refs.values())), "the references hold no word, so there is no error rate; give the "
            "transcripts of the test set")


def check_whole(hyps: dict[str, str], dense: dict[str, str], where: str = "the dense model's text") -> None:
    """Check that the dense model has a hypothesis of every utterance of `hyps`: without, all its words would count as
    deleted by the dense model. Errors: UserError that names the first without."""
    if lacking := [key for key in hyps if key not in dense]:
        raise UserError(f"{where} lacks {len(lacking)} of {len(hyps)} hypotheses (the first is {lacking[0]}); decode "
                        "the same test set with the dense model")


def check_ids(refs: dict[str, str], hyps: dict[str, str]) -> None:
    """Check that every hypothesis has a reference. Errors: UserError that names the first without."""
    strangers = [key for key in hyps if key not in refs]
    if strangers:
        raise UserError(f"{len(strangers)} of {len(hyps)} hypotheses have no reference (the first is {strangers[0]}); "
                        f"give the references and the hypotheses of the same test set")


def _split(texts: dict[str, str], keys: list[str]) -> list[list[str]]:
    return [texts.get(key, "").split() for key in keys]


def interval(refs: dict[str, str], hyps: dict[str, str]) -> tuple[float, float] | None:
    """The 95 % bootstrap interval of the error rate in percent; None where a resample may hold no word at all."""
    import kaldialign

    keys = sorted(refs)
    found = kaldialign.bootstrap_wer_ci(_split(refs, keys), _split(hyps, keys), replications=REPLICATIONS, seed=0)
    if not math.isfinite(found["ci95"]) or not math.isfinite(found["wer"]):
        return None
    return max(0.0, 100 * found["ci95min"]), 100 * found["ci95max"]


def p_better(refs: dict[str, str], hyps: dict[str, str], dense: dict[str, str]) -> float:
    """The probability that `hyps` beat `dense`: near 1 better, near 0 worse, 0.5 for equal texts.

    The share of resampled test sets on which `hyps` make fewer errors, and half of those with equally many.
    kaldialign counts strict wins of its second system over its first, and with one seed both directions see the same
    resamples, so wins, losses and ties add up to one. Errors: those of `check_ids` and `check_whole`.
    """
    import kaldialign

    check_ids(refs, dense)
    check_whole(hyps, dense)
    keys = sorted(refs)
    words, ours, theirs = (_split(texts, keys) for texts in (refs, hyps, dense))
    wins, losses = (kaldialign.bootstrap_wer_ci(words, first, second, REPLICATIONS, seed=0)["p_s2_improv_over_s1"]
                    for first, second in ((theirs, ours), (ours, theirs)))
    return round((wins + 1 - losses) / 2, 5)


def alignment(pairs: dict[str, Pairs]) -> str:
    """Kaldi's per-utterance form: lines `ref`, `hyp`, `op` (C, S, I, D) in columns, and `#csid` with their counts."""
    lines = []
    for key, aligned in pairs.items():
        ops = ["I" if not r else "D" if not h else "C" if r == h else "S" for r, h in aligned]
        columns = [(r or GAP, h or GAP, op) for (r, h), op in zip(aligned, ops, strict=True)]
        widths = [max(map(len, column)) for column in columns]
        for i, kind in enumerate(("ref", "hyp", "op ")):
            cells = " ".join(column[i].ljust(width) for column, width in zip(columns, widths, strict=True))
            lines.append(f"{key} {kind} {cells}".rstrip())
        lines.append(f"{key} #csid " + " ".join(str(ops.count(op)) for op in "CSID"))
    return "".join(line + "\n" for line in lines)


def read_alignment(path: Path) -> dict[str, tuple[str, str, int]]:
    """Utterance -> (reference, hypothesis, errors), of a file of `alignment`."""
    lines = require_file(path, "the alignment").read_text(encoding="utf-8").splitlines()
    found = {}
    for ref, hyp, _, counts in zip(*(iter(lines),) * 4, strict=True):
        (name, _, *said), (_, _, *heard) = ref.split(), hyp.split()
        texts = [" ".join(word for word in words if word != GAP) for words in (said, heard)]
        found[name] = (texts[0], texts[1], sum(map(int, counts.split()[3:])))
    return found


def write(out: Path | str, result: Score) -> Path:
    """Write the score and the alignment: `OUT/score.json` and `OUT/align.txt`, or `X.json` and `X.align.txt`."""
    out = Path(out)
    scores = out if out.suffix == ".json" else out / "score.json"
    aligned = out.with_suffix(".align.txt") if out.suffix == ".json" else out / "align.txt"
    with atomic(aligned) as temporary:
        temporary.write_text(alignment(result.pairs), encoding="utf-8")
    with atomic(scores) as temporary:
        temporary.write_text(json.dumps({**result.row(), "missing": result.missing}, indent=1) + "\n", encoding="utf-8")
    return scores


def score_files(ref: Path, hyp: Path, dense: Path | None = None, unit: str = "word") -> Score:
    """`score` of Kaldi `text` files."""
    hyps, theirs = text.read(hyp), text.read(dense) if dense else None
    if theirs is not None:
        check_whole(hyps, theirs, str(dense))
    return score(text.read(ref), hyps, theirs, unit)


def sweep(refs: dict[str, str], folder: Path | str, unit: str = "word") -> list[dict[str, Any]]:
    """Score every `ac<scale>[-lm<scale>][-bp<penalty>].txt` of `folder`, the best first.

    Returns [{acoustic_scale, lm_scale, blank_penalty, wer, hyp}].

    The references are a held-out part of the training set, never a test set. Where rates are equal, the smaller scales
    come first. Errors: UserError where the folder has no such file, and those of `score`.
    """
    import kaldialign

    check_words(refs)
    rate = "wer" if unit == "word" else "ter"
    paths = sorted(require_file(folder, "the folder of hypotheses").iterdir())
    found = [(match.groups(), path) for path in paths if (match := SWEPT.fullmatch(path.name))]
    rows = []
    for (acoustic, lm, blank), path in found:
        hyps = text.read(path)
        check_ids(refs, hyps)
        errors = kaldialign.batch_error_rate(_split(refs, sorted(refs)), _split(hyps, sorted(refs)))
        rows.append({"acoustic_scale": float(acoustic), "lm_scale": float(lm or 1), "blank_penalty": float(blank or 0),
                     rate: round(100 * errors["err_rate"], 3), "hyp": path.name})
    if not rows:
        raise UserError(f"{folder} holds no ac<scale>.txt to choose from; run `asrcompress search` at several scales")
    return sorted(rows, key=lambda row: (row[rate], row["acoustic_scale"], row["lm_scale"], abs(row["blank_penalty"])))
