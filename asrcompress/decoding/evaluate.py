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
    references = text.read(data / f"{name}.text")
    started = time.perf_counter()
    said = recogniser.transcribe(waves)
    seconds = time.perf_counter() - started
    at = out / name
    text.write(at / "hyp.txt", said)
    text.write(at / "ref.txt", {key: recogniser.normalise(references[key]) for key in said})
    text.write(at / "words.txt", {key: recogniser.normalise(one) for key, one in said.items()})
    score = scoring.score_files(at / "ref.txt", at / "words.txt", dense / name / "words.txt" if dense else None)
    scoring.write(at, score)
    audio = sum(len(samples) / rate for _, samples, rate in waves)
    parameters = sum(parameter.numel() for parameter in recogniser.model.parameters())
    return Result(score, {"rtf": seconds / audio, "parameters": parameters, "cpu": machine.cpu()})
