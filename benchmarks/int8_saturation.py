"""What int8 products lose on x86 without VNNI, whose instruction adds two products in 16 bits, worked out in torch.

  python benchmarks/int8_saturation.py --model exp/dense/model.packed --data data --set dev --lang data/lang_phone

onnxruntime chooses its kernels by the processor, so this computes what the other one would: `vpmaddubsw` multiplies
unsigned by signed bytes and adds neighbours in 16 bits, saturated. Three lines: 8-bit weights with exact sums (VNNI,
ARM), 8-bit weights with those sums, 7-bit weights (`export --reduce-range`) with those sums. Each has the greedy token
error, the tokens and frames that differ from torch's, the divergence in nats a frame, and the layers whose sums
saturate. 30 utterances take some minutes.
"""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import kaldialign
import numpy as np
import torch
from torch import Tensor, nn

from asrcompress import compression
from asrcompress.compression.folding import fold
from asrcompress.compression.parametrization import copy_model
from asrcompress.decoding.greedy import best_tokens
from asrcompress.lang.tokens import read_symbols
from asrcompress.runtimes.onnx_graph import parity, quantized, sensitivity

TOP = 2**15


class Product:
    """The int8 product of a dense layer: inputs with one dynamic range, a step for each row of the weight."""

    def __init__(self, layer: Any, bits: int, saturate: bool) -> None:
        self.layer, self.saturate, self.saturated, self.sums = layer, saturate, 0, 0
        rows = layer.weight.detach()
        rows = rows.permute(0, 2, 1).flatten(1) if rows.dim() == 3 else rows
        self.codes, self.step = map(torch.from_numpy, quantized.integers(rows.numpy(), bits))

    def __call__(self, x: Tensor) -> Tensor:
        low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
        scale = (high - low) / 255
        zero = round(-low / scale)
        u = (x / scale).round().add(zero).clamp(0, 255)
        if isinstance(self.layer, nn.Conv1d):
            taps, dilation = self.layer.kernel_size[0], self.layer.dilation[0]
            u = nn.functional.pad(u, (int(self.layer.padding[0]),) * 2, value=zero)
            u = u.unfold(2, (taps - 1) * dilation + 1, self.layer.stride[0])[..., ::dilation]
            u = u.permute(0, 2, 3, 1).flatten(2)
        w = self.codes.int()
        y = (self.added(u.int(), w) - zero * w.sum(1)).float() * scale * self.step
        y = y if self.layer.bias is None else y + self.layer.bias
        return y.mT if isinstance(self.layer, nn.Conv1d) else y

    def added(self, u: Tensor, w: Tensor) -> Tensor:
        if not self.saturate:
            return (u.double() @ w.double().T).int()
        total = torch.zeros(*u.shape[:-1], len(w), dtype=torch.int32)
        for k in range(0, w.shape[1], 2):
            pair = u[..., k: k + 2].unsqueeze(-2) * w[:, k: k + 2]
            added = pair.sum(-1, dtype=torch.int32)
            self.saturated += int(((added >= TOP) | (added < -TOP)).sum())
            self.sums += added.numel()
            total += added.clamp(-TOP, TOP - 1)
        return total


def emulated(model: nn.Module, bits: int, saturate: bool) -> tuple[nn.Module, dict[str, Product]]:
    """A copy whose dense layers compute in integers, and these."""
    model, products = copy_model(model), {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv1d) and module.groups == 1):
            module.forward = products[path] = Product(module, bits, saturate)  # type: ignore[method-assign,assignment]
    return model, products


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "data", "lang"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--set", required=True)
    parser.add_argument("--utterances", type=int, default=30)
    args = parser.parse_args()
    torch.set_num_threads(1)
    references = sensitivity.references(args.data, args.set, args.lang)
    speech = {utt: batch for utt, batch in parity.utterances(args.data, args.set).items() if utt in references}
    speech = {utt: speech[utt] for utt in list(speech)[:: max(1, len(speech) // args.utterances)][: args.utterances]}
    symbols = {number: token for token, number in read_symbols(args.lang / "tokens.txt").items()}
    model = fold(compression.load(args.model)).float()

    def outputs(model: nn.Module) -> dict[str, Any]:
        with torch.inference_mode():
            return {utt: model(*batch)[0][0].numpy() for utt, batch in speech.items()}

    def tokens(log_probs: Any) -> list[str]:
        return [symbols[token] for token in best_tokens(log_probs)]

    def say(what: str, found: dict[str, Any]) -> None:
        errors = sum(kaldialign.edit_distance(references[utt], tokens(found[utt]))["total"] for utt in speech)
        other = sum(kaldialign.edit_distance(tokens(exact[utt]), tokens(found[utt]))["total"] for utt in speech)
        frames, divergence = parity.distance(*(np.concatenate(list(one.values())) for one in (found, exact)))
        share = errors / sum(len(references[utt]) for utt in speech)
        print(f"{what}: token error {100 * share:.2f} %, {other} tokens and {100 * frames:.2f} % of the frames differ, "
              f"divergence {divergence:.1e}", flush=True)

    exact = outputs(model)
    say("torch, float32", exact)
    for bits, saturate in ((8, False), (8, True), (7, True)):
        small, products = emulated(model, bits, saturate)
        say(f"{bits} bits, {'16-bit' if saturate else 'exact'} sums", outputs(small))
        kinds: Counter[str] = Counter()
        for path, product in products.items():
            kinds[path.rpartition(".")[2]] += product.saturated
        every = sum(product.sums for product in products.values())
        if saturate:
            print(f"  {100 * sum(kinds.values()) / every:.3f} % of the sums saturate; of these",
                  ", ".join(f"{name} {100 * count / sum(kinds.values()):.0f} %" for name, count in
                            kinds.most_common(8) if count) or "none")


if __name__ == "__main__":
    main()
