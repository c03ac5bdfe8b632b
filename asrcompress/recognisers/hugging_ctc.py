"""CTC models of Hugging Face's that hear samples: wav2vec 2.0 (Baevski et al., NeurIPS 2020), HuBERT and their kin."""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from asrcompress.compression.distil import divergence
from asrcompress.decoding.greedy import best_tokens
from asrcompress.recognisers.base import Samples, batches, join_windows
from asrcompress.runtimes.base import RATE, Wave

WINDOW = 15.0  # seconds of a batch of calibration
BATCH = 8


def of(model: nn.Module) -> "HuggingCtc":
    """The recogniser; it has no options."""
    return HuggingCtc(model)


class HuggingCtc:
    """A `Recogniser` with a greedy search."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.said: Mapping[str, Any] = model.recogniser

    @cached_property
    def extractor(self) -> Any:
        """Samples -> what the model hears (N, time)."""
        from transformers import Wav2Vec2FeatureExtractor

        return Wav2Vec2FeatureExtractor(**self.said["features"])

    def _heard(self, samples: list[Samples]) -> dict[str, Tensor]:
        return dict(self.extractor(samples, sampling_rate=RATE, return_tensors="pt", padding=True))

    def _frames(self, samples: Samples) -> int:
        return int(self.model._get_feat_extract_output_lengths(len(samples)))

    @torch.inference_mode()
    def transcribe(self, waves: Iterable[Wave]) -> dict[str, str]:
        """Utterance -> text, in the order of `waves`."""
        waves, found = list(waves), {}
        # A model that takes no mask hears the padding, in its GroupNorm even at all frames: then one at a time.
        size = BATCH if self.said["features"].get("return_attention_mask") else 1
        for names, samples in batches(waves, size, lambda samples: self._frames(samples) > 0):
            logits = self.model(**self._heard(samples)).logits
            for name, one, row in zip(names, samples, logits, strict=True):
                tokens = best_tokens(row[:self._frames(one)].numpy(), self.said["blank"])
                found[name] = self.text(tokens)
        return {name: found.get(name, "") for name, _, _ in waves}

    def text(self, tokens: Iterable[int]) -> str:
        """Tokens -> text; those in angle brackets say nothing."""
        named = [self.said["vocabulary"][token] for token in tokens]
        letters = "".join(token for token in named if not (token.startswith("<") and token.endswith(">")))
        return " ".join(letters.replace(self.said["space"], " ").split())

    def calibration(self, waves: Iterable[Wave]) -> Iterator[dict[str, Tensor]]:
        """One window of utterances a batch."""
        for samples in join_windows(waves, WINDOW):
            yield self._heard([samples])

    def distillation_loss(self, teacher: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """KL(teacher || model) of the posteriors (1, T, vocab) on a batch of `calibration`, in nats a frame."""
        with torch.no_grad():
            wanted = teacher(**batch).logits.float().log_softmax(-1)
        said = self.model(**batch).logits.float().log_softmax(-1)
        return divergence(wanted, said, torch.full((len(said),), said.shape[1]))

    def normalise(self, text: str) -> str:
        """Capital letters and apostrophes."""
        return " ".join(re.sub(r"[^\w\s']", " ", text).upper().split())
