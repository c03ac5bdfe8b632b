"""Which products may be quantized: ranges from training speech, and what is left out for the sake of the error rate."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import kaldialign
import numpy as np
import onnx as onnx_package
import torch
from torch import nn

from asrcompress.decoding.greedy import best_tokens, token_references
from asrcompress.errors import UserError
from asrcompress.files import require_file
from asrcompress.lang import text
from asrcompress.lang.tokens import read_symbols
from asrcompress.runtimes.onnx_graph import acoustic, parity, quantized
from asrcompress.runtimes.onnx_graph.options import Options
from asrcompress.runtimes.onnx_graph.parity import Batch
from asrcompress.runtimes.onnx_graph.quantized import Array, Ranges
from asrcompress.runtimes.onnx_graph.session import session

CLIPPED = 1e-4  # of the numbers of each side, in each utterance: outliers would cost the others their precision
RANKING = 20  # utterances


def plain(options: Options) -> Options:
    """The same file in float32."""
    return replace(options, precision="float32", keep_small=False, keep_float=(), ranges=None, reduce_range=False)


def ranges(model: nn.Module, options: Options, batches: Iterable[Batch]) -> Ranges:
    """The range of the input of each product, 0 included, over some speech."""
    proto, inputs = acoustic.convert_with_inputs(model, plain(options))
    names = sorted(set(inputs.values()))
    proto.graph.output.extend(onnx_package.ValueInfoProto(name=name) for name in names)
    running = session(proto.SerializeToString())
    found = dict.fromkeys(names, (0.0, 0.0))
    for x, lens in batches:
        for name, array in zip(names, running.run(names, {"x": x.numpy(), "x_lens": lens.numpy()}), strict=True):
            count = int(CLIPPED * array.size)
            ordered = np.partition(array, (count, array.size - 1 - count), axis=None)
            low, high = ordered[count], ordered[array.size - 1 - count]
            found[name] = min(found[name][0], float(low)), max(found[name][1], float(high))
    return {product: found[name] for product, name in inputs.items()}


def references(data: Path, name: str, lang: Path) -> dict[str, list[str]]:
    """Tokens of the first pronunciations, of the utterances of a set whose words all have one.

    Errors: UserError where there is no such utterance.
    """
    known = token_references(text.read(require_file(data / f"{name}.text", "the transcripts of the set")), lang)
    if not any(known.values()):
        raise UserError(f"no utterance of {name} has a pronunciation for every word in {lang}; give the lang folder of "
                        "the set")
    return known


class HeldOut:
    """Speech with transcripts on which options are judged, against the same model in float32."""

    def __init__(self, model: nn.Module, options: Options, data: Path, name: str, lang: Path) -> None:
        self.model, self.options = model, options
        self.references = references(data, name, lang)
        self.batches = parity.utterances(data, name)
        self.ranked = list(self.batches)[:: max(1, len(self.batches) // RANKING)]
        self.symbols = {number: token for token, number in read_symbols(lang / "tokens.txt").items()}
        proto, inputs = acoustic.convert_with_inputs(model, plain(options))
        self.products = list(inputs)
        self.expected = self._log_probs(proto, self.batches)
        self.error = self._error(self.expected)

    def loss(self, keep_float: Iterable[str] = ()) -> float:
        """Percentage points of token error (greedy) that quantizing all but these products costs."""
        return self._error(self._log_probs(self._proto(keep_float), self.batches)) - self.error

    def ranking(self) -> list[tuple[str, float]]:
        """The products, worst first, and the mean divergence (nats a frame) of quantizing each alone."""
        found = []
        for product in self.products:
            keep = [other for other in self.products if other != product]
            log_probs = self._log_probs(self._proto(keep), self.ranked)
            pair = (np.concatenate([one[utt] for utt in self.ranked]) for one in (log_probs, self.expected))
            found.append((product, parity.distance(*pair)[1]))
        return sorted(found, key=lambda row: -row[1])

    def _proto(self, keep_float: Iterable[str]) -> onnx_package.ModelProto:
        return acoustic.convert(self.model, replace(self.options, keep_float=tuple(keep_float)))

    def _log_probs(self, proto: onnx_package.ModelProto, utts: Iterable[str]) -> dict[str, Array]:
        running, found = session(proto.SerializeToString()), {}
        for utt in utts:
            x, lens = self.batches[utt]
            found[utt] = running.run(None, {"x": x.numpy(), "x_lens": lens.numpy()})[0][0] / self.options.acoustic_scale
        return found

    def _error(self, log_probs: dict[str, Array]) -> float:
        wrong = tokens = 0
        for utt, wanted in self.references.items():
            if utt in log_probs:
                found = [self.symbols[token] for token in best_tokens(log_probs[utt])]
                wrong += kaldialign.edit_distance(wanted, found)["total"]
                tokens += len(wanted)
        return 100 * wrong / max(1, tokens)


@torch.no_grad()
def leave_out(held_out: HeldOut, max_loss: float) -> tuple[tuple[str, ...], list[str]]:
    """The products that stay float, so that the loss is at most `max_loss`; and what was found, as lines.

    The worst of the ranking are left out, one after the other. Errors: UserError where no choice keeps the limit.
    """
    kept = [name for name in held_out.products if quantized.kept(name, held_out.options.keep_float)]
    loss = held_out.loss(kept)
    lines = [f"token error of float32 {held_out.error:.2f} %; quantized {loss:+.2f}"]
    if loss <= max_loss:
        return tuple(kept), lines
    for product, divergence in held_out.ranking():
        if product not in kept:
            kept.append(product)
            loss = held_out.loss(kept)
            lines.append(f"{product}: divergence alone {divergence:.4f} nats; left in float: {loss:+.2f}")
        if loss <= max_loss:
            return tuple(kept), lines
    raise UserError(f"even with every product in float the loss is {loss:+.2f}, above {max_loss:g}; give a larger "
                    "--max-loss")
