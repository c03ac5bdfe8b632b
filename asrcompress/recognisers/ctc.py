"""Our own models: log-mel features, CTC posteriors, and the best tokens, or the best words of a graph.

BPE tokens are words by themselves. Phones become words by a graph only (HLG.npz), which k2 searches in its environment.
"""

import tempfile
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from asrcompress.compression.distil import divergence
from asrcompress.decoding.archive import Archive, ArchiveWriter
from asrcompress.decoding.greedy import bpe_words, greedy
from asrcompress.errors import UserError
from asrcompress.recognisers.base import Samples, batches
from asrcompress.runtimes.base import RATE, Wave, has_frame

BATCH = 8


def of(model: nn.Module, lang: Path | None = None, graph: Path | None = None, acoustic_scale: float = 1.0) -> "Ctc":
    """The recogniser of a model: `lang` is its lang folder, `graph` HLG.npz, `acoustic_scale` that of the search.

    Errors: UserError where there is no lang folder, or it is another model's.
    """
    if lang is None:
        raise UserError("a model of ours needs the names of its tokens; give its lang folder as lang (--lang)")
    from asrcompress.runtimes.onnx_graph.acoustic import check_tokens

    check_tokens(Path(lang) / "tokens.txt", int(model.config["vocab"]))  # type: ignore[index,arg-type]
    return Ctc(model, Path(lang), graph, acoustic_scale)


class Ctc:
    """A `Recogniser`."""

    def __init__(self, model: Any, lang: Path, graph: Path | None, acoustic_scale: float) -> None:
        self.model, self.lang, self.graph, self.acoustic_scale = model, lang, graph, acoustic_scale

    @cached_property
    def _fbank(self) -> Any:
        from lhotse import Fbank

        return Fbank()

    def _heard(self, samples: list[Samples]) -> tuple[Tensor, Tensor]:
        """x (N, T, 80), x_lens (N,)."""
        found = [torch.from_numpy(self._fbank.extract(one, RATE)) for one in samples]
        lens = torch.tensor([len(one) for one in found])
        return torch.nn.utils.rnn.pad_sequence(found, batch_first=True), lens

    def transcribe(self, waves: Iterable[Wave]) -> dict[str, str]:
        """Utterance -> words, or tokens where they are phones and there is no graph; in the order of `waves`."""
        waves = list(waves)
        with tempfile.TemporaryDirectory() as place:
            at = Path(place)
            self._write(waves, at / "posteriors")
            found = self._search(at) if self.graph else self._greedy(at)
        return {name: found.get(name, "") for name, _, _ in waves}

    @torch.inference_mode()
    def _write(self, waves: list[Wave], path: Path) -> None:
        seconds = {"frame_seconds": 0.01 * self.model.subsampling}
        with ArchiveWriter(path, self.model.config["vocab"], seconds) as archive:
            for names, samples in batches(waves, BATCH, has_frame):
                log_probs, lens = self.model(*self._heard(samples))
                for name, row, length in zip(names, log_probs, lens.tolist(), strict=True):
                    archive.add(name, row[:length].numpy())

    def _greedy(self, at: Path) -> dict[str, str]:
        from asrcompress.lang.tokens import read_symbols

        found = greedy(Archive(at / "posteriors"), read_symbols(self.lang / "tokens.txt"))
        is_bpe = (self.lang / "bpe.model").exists()
        return {name: bpe_words(tokens.split()) if is_bpe else tokens for name, tokens in found.items()}

    def _search(self, at: Path) -> dict[str, str]:
        from asrcompress.lang import text
        from asrcompress.recipe import commands

        commands.in_k2("search", "--archive", at / "posteriors", "--graph", self.graph, "--words",
                       self.lang / "words.txt", "--acoustic-scale", self.acoustic_scale, "--out", at / "hyp.txt",
                       silent=True)
        return text.read(at / "hyp.txt")

    def calibration(self, waves: Iterable[Wave]) -> Iterator[tuple[Tensor, Tensor]]:
        """x (N, T, 80), x_lens (N,) of utterances of similar length."""
        for _, samples in batches(waves, BATCH, has_frame):
            yield self._heard(samples)

    def distillation_loss(self, teacher: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """KL(teacher || model) of the posteriors (N, T, vocab) on a batch of `calibration`, in nats a frame."""
        with torch.no_grad():
            wanted = teacher(*batch)[0]
        said, lens = self.model(*batch)
        return divergence(wanted, said, lens)

    def normalise(self, text: str) -> str:
        """Words are counted as the lexicon writes them."""
        return text
