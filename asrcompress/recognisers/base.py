"""What a recogniser is: a model, and what turns speech into its arguments and its outputs into words."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from asrcompress.runtimes.base import RATE, Wave

Samples = np.ndarray  # (time,) float32 in [-1, 1] at RATE


class Recogniser(Protocol):
    """One member of `asrcompress.recognisers`, or of a third party."""

    model: nn.Module

    def transcribe(self, waves: Iterable[Wave]) -> dict[str, str]:
        """Utterance -> its text as the model writes it."""

    def calibration(self, waves: Iterable[Wave]) -> Iterator[Any]:
        """Batches of the arguments of `model(...)`, for `compress` and `distil`; no transcripts are needed."""

    def distillation_loss(self, teacher: nn.Module, batch: Any) -> Tensor:
        """How far the model is from a teacher of the same outputs on a batch of `calibration`, with gradients."""

    def normalise(self, text: str) -> str:
        """A text, reference or hypothesis, as words are counted: `MR. QUILTER` and `Mister Quilter` are the same."""


def at_rate(samples: Samples, rate: int) -> Samples:
    """Samples at RATE."""
    if rate == RATE or not len(samples):
        return samples
    import torch
    from torchaudio.functional import resample

    return resample(torch.from_numpy(samples), rate, RATE).numpy()


def join_windows(waves: Iterable[Wave], seconds: float, pause: float = 0.3) -> Iterator[Samples]:
    """Utterances one after the other, with pauses between, in windows of at most so many seconds.

    A longer utterance is cut. A model that always hears windows of one length then hears speech in all of it.
    """
    most, silence = int(seconds * RATE), np.zeros(int(pause * RATE), np.float32)
    parts: list[Samples] = []
    for _, samples, rate in waves:
        heard = at_rate(samples, rate)[:most]
        if parts and sum(map(len, parts)) + len(heard) > most:
            yield np.concatenate(parts)
            parts = []
        parts += [heard, silence]
    if parts:
        yield np.concatenate(parts)[:most]


def batches(waves: Iterable[Wave], size: int, long_enough: Callable[[Samples], bool] = lambda _: True
            ) -> Iterator[tuple[list[str], list[Samples]]]:
    """(utterances, samples at RATE) of `size` waves of similar length at a time; without those that are not
    `long_enough` for the model."""
    heard = sorted(((name, at_rate(samples, rate)) for name, samples, rate in waves), key=lambda one: -len(one[1]))
    heard = [one for one in heard if long_enough(one[1])]
    for first in range(0, len(heard), size):
        part: Sequence[tuple[str, Samples]] = heard[first:first + size]
        yield [name for name, _ in part], [samples for _, samples in part]
