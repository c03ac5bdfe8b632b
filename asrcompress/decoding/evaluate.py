"""Evaluate a recogniser on a prepared set: transcribe, normalise, score."""

import time
from pathlib import Path
from typing import Any, NamedTuple

from asrcompress.decoding import score as scoring
from asrcompress.lang import text
from asrcompress.measure import machine
from asrcompress.recognisers import Recogniser
from asrcompress.runtimes.base import waves_of_set


class Result(NamedTuple):
    """A score, and what a row says of the run besides: real-time factor, parameters, machine."""

    score: scoring.Score
    facts: dict[str, Any]


def evaluate(recogniser: Recogniser, data: Path, name: str, out: Path, dense: Path | None = None) -> Result:
    """Transcribe the set DATA/NAME.jsonl.gz into OUT/NAME/ and score it; `dense` is the `out` of the dense model.

    Errors: UserError where the set is missing, or `dense` has no words of it.
    """
    waves = list(waves_of_set(data, name))
    started = time.perf_counter()
    said = recogniser.transcribe(waves)
    seconds = time.perf_counter() - started
    score = score_texts(recogniser, said, data / f"{name}.text", out / name, dense / name if dense else None)
    audio = sum(len(samples) / rate for _, samples, rate in waves)
    parameters = sum(parameter.numel() for parameter in recogniser.model.parameters())
    return Result(score, {"rtf": seconds / audio, "parameters": parameters, "cpu": machine.cpu()})


def score_texts(recogniser: Recogniser, said: dict[str, str], references: Path, out: Path,
                dense: Path | None = None) -> scoring.Score:
    """Score what was said of each utterance, both sides as the recogniser normalises words; OUT gets hyp.txt, ref.txt,
    words.txt and the score. `dense` is the `out` of the dense model. Errors: UserError where that has no words."""
    wanted = text.read(references)
    text.write(out / "hyp.txt", said)
    text.write(out / "ref.txt", {key: recogniser.normalise(wanted[key]) for key in said})
    text.write(out / "words.txt", {key: recogniser.normalise(one) for key, one in said.items()})
    score = scoring.score_files(out / "ref.txt", out / "words.txt", dense / "words.txt" if dense else None)
    scoring.write(out, score)
    return score
