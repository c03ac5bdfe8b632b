"""Whisper (Radford et al., "Robust speech recognition via large-scale weak supervision", ICML 2023) of Hugging Face's.

It hears windows of 30 s. Shorter speech is filled up with silence; longer speech is heard window after window, as the
timestamps that it writes itself say.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from asrcompress.compression.distil import frame_divergence
from asrcompress.options import require
from asrcompress.recognisers.base import Samples, batches, join_windows
from asrcompress.runtimes.base import RATE, Wave, has_frame

WINDOW = 30.0  # seconds
BATCH = 8  # windows at a time


def of(model: nn.Module, language: str = "en", beam: int = 1) -> "Whisper":
    """The recogniser; `language` is for models of many languages, `beam` is the width of the search, 1: greedy.

    Errors: UserError for a language that the model has not.
    """
    require(beam >= 1, f"beam is {beam}; it is at least 1")
    chosen: Any = model.generation_config
    many = getattr(chosen, "is_multilingual", False)
    there = [token.strip("<|>") for token in getattr(chosen, "lang_to_id", None) or ()] if many else ["en"]
    require(language is None or not there or language in there,
            f"this Whisper has no language '{language}' (--language); it has {', '.join(there)}")
    return Whisper(model, language, beam)


class Whisper:
    """A `Recogniser`. `model.recogniser` has the settings of its features, its tokens and spellings."""

    def __init__(self, model: Any, language: str = "en", beam: int = 1) -> None:
        self.model, self.language, self.beam = model, language, beam
        self.said: Mapping[str, Any] = model.recogniser

    @cached_property
    def extractor(self) -> Any:
        """Samples -> log-mel energies (N, mels, frames)."""
        from transformers import WhisperFeatureExtractor, logging

        logging.set_verbosity_error()  # its generate warns of settings that are its own
        return WhisperFeatureExtractor(**self.said["features"])

    @cached_property
    def vocabulary(self) -> list[bytes]:
        """The bytes of each ordinary token."""
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        byte = {character: number for number, character in bytes_to_unicode().items()}
        return [bytes(byte[character] for character in token) for token in self.said["vocabulary"]]

    def text(self, tokens: Iterable[int]) -> str:
        """Tokens -> text; special ones say nothing."""
        ordinary = [self.vocabulary[token] for token in tokens if token < len(self.vocabulary)]
        return " ".join(b"".join(ordinary).decode("utf-8", errors="replace").split())

    def transcribe(self, waves: Iterable[Wave]) -> dict[str, str]:
        """Utterance -> text, in the order of `waves`."""
        waves = list(waves)
        found: dict[str, str] = {}
        for names, samples in batches(waves, BATCH, has_frame):
            long = sum(len(one) > WINDOW * RATE for one in samples)  # they come first, and are heard one at a time
            parts = [*([one] for one in samples[:long]), samples[long:]]
            rows = [row for part in parts if part for row in self._generate(part)]
            found |= {name: self.text(row) for name, row in zip(names, rows, strict=True)}
        return {name: found.get(name, "") for name, _, _ in waves}

    @torch.inference_mode()
    def _generate(self, samples: list[Samples]) -> list[list[int]]:
        """Tokens of speech that is short, or of one that is longer than a window."""
        long = len(samples[0]) > WINDOW * RATE
        heard = self.extractor(samples, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True,
                               **({"truncation": False, "padding": "longest"} if long else {}))
        chosen = self.model.generation_config
        many = {"language": self.language, "task": "transcribe"} if getattr(chosen, "is_multilingual", False) else {}
        tokens = self.model.generate(heard.input_features, attention_mask=heard.attention_mask, num_beams=self.beam,
                                     do_sample=False, return_timestamps=long,
                                     max_new_tokens=self.model.config.max_target_positions // 2, **many)  # as OpenAI's
        return tokens.tolist()  # type: ignore[no-any-return]

    def calibration(self, waves: Iterable[Wave]) -> Iterator[dict[str, Tensor]]:
        """One window a batch, full of utterances, and what the model itself writes of it: no padding is among it."""
        for samples in join_windows(waves, WINDOW):
            tokens = self._generate([samples])[0]
            features = self.extractor([samples], sampling_rate=RATE, return_tensors="pt").input_features
            start = torch.tensor([[*self.prompt(), *(token for token in tokens if token < len(self.vocabulary))]])
            yield {"input_features": features, "decoder_input_ids": start[:, :self.model.config.max_target_positions]}

    def prompt(self) -> list[int]:
        """What the decoder is given before a text: start of transcript, language and task, no timestamps."""
        chosen, prompt = self.model.generation_config, [self.model.generation_config.decoder_start_token_id]
        if getattr(chosen, "is_multilingual", False):
            prompt += [chosen.lang_to_id[f"<|{self.language}|>"], chosen.task_to_id["transcribe"]]
        return [*prompt, chosen.no_timestamps_token_id]

    def distillation_loss(self, teacher: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """KL(teacher || model) of the tokens' posteriors (1, tokens, vocab) in nats a token, and the squared error of
        the encoder's outputs (1, 1500, width) over their variance."""
        with torch.no_grad():
            wanted = teacher(**batch)
        said = self.model(**batch)
        tokens = frame_divergence(wanted.logits.float().log_softmax(-1), said.logits.float().log_softmax(-1)).mean()
        hidden = wanted.encoder_last_hidden_state.float()
        return tokens + functional.mse_loss(said.encoder_last_hidden_state.float(), hidden) / hidden.var()

    @cached_property
    def _normaliser(self) -> Any:
        from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

        return EnglishTextNormalizer(self.said["spelling"]) if self.language == "en" else BasicTextNormalizer()

    def normalise(self, text: str) -> str:
        """As OpenAI counts words: `Mr. Quilter's 2nd` is `mister quilter is 2nd`."""
        return " ".join(self._normaliser(text).split())
