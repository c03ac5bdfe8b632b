"""whisper: a Whisper model of Hugging Face as the two ONNX files that sherpa-onnx's `from_whisper` loads.

encoder.onnx makes of log-mel energies the keys and values of every cross-attention. decoder.onnx makes of some tokens
the logits of the next ones, and keeps keys and values of self-attention in caches of fixed size. The metadata are in
the encoder's file.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from asrcompress.compression.packed.verify import jumps
from asrcompress.compression.parametrization import copy_model
from asrcompress.errors import UserError
from asrcompress.files import atomic
from asrcompress.runtimes.base import Exported
from asrcompress.runtimes.onnx_graph import traced
from asrcompress.runtimes.onnx_graph.parity import TOLERANCES, distance, gap
from asrcompress.runtimes.onnx_graph.plain import plain
from asrcompress.runtimes.onnx_graph.session import run, session
from asrcompress.runtimes.onnx_graph.whisper_metadata import metadata, special_ids, tokens_txt

PRECISIONS = ("float32", "int8-dynamic")
FILES = ("encoder.onnx", "decoder.onnx", "tokens.txt")
STEPS = 12  # tokens of the comparison with torch, after those that start a transcript
Array = np.ndarray[Any, Any]


class Encoder(nn.Module):
    """mel (N, mels, frames), an even number up to 30 s -> n_layer_cross_k and n_layer_cross_v, each (layers, N,
    frames / 2, d_model)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = model.model.encoder
        self.keys = nn.ModuleList(layer.encoder_attn.k_proj for layer in model.model.decoder.layers)
        self.values = nn.ModuleList(layer.encoder_attn.v_proj for layer in model.model.decoder.layers)

    def forward(self, mel: Tensor) -> dict[str, Tensor]:
        encoder = self.encoder
        x = functional.gelu(encoder.conv2(functional.gelu(encoder.conv1(mel)))).transpose(1, 2)
        x = x + encoder.embed_positions(torch.arange(x.shape[1], device=x.device))
        for layer in encoder.layers:
            y = layer.self_attn_layer_norm(x)
            x = x + attend(layer.self_attn, y, layer.self_attn.k_proj(y), layer.self_attn.v_proj(y))
            x = x + feed_forward(layer, x)
        x = encoder.layer_norm(x)
        return {"n_layer_cross_k": torch.stack([layer(x) for layer in self.keys]),
                "n_layer_cross_v": torch.stack([layer(x) for layer in self.values])}


class Decoder(nn.Module):
    """tokens (N, n) that follow `offset` (1,) others -> logits (N, n, vocabulary) and the caches with theirs.

    The caches are (layers, N, positions, d_model); what they hold from `offset` on is not read. Keys and values of
    cross-attention are those of `Encoder`.
    """

    def __init__(self, model: Any, share: bool = True) -> None:
        """`share`: multiply by the table of embeddings itself where it is the output's weight, so that the file has it
        once; otherwise by its transposed copy, as a quantizer wants it."""
        super().__init__()
        self.decoder, self.output = model.model.decoder, model.proj_out
        self.share = share and is_tied(model)

    def forward(self, tokens: Tensor, in_n_layer_self_k_cache: Tensor, in_n_layer_self_v_cache: Tensor,
                n_layer_cross_k: Tensor, n_layer_cross_v: Tensor, offset: Tensor) -> dict[str, Tensor]:
        decoder, start = self.decoder, offset[0]
        end = start + tokens.shape[1]
        positions = offset + torch.arange(tokens.shape[1], device=tokens.device)
        x = decoder.embed_tokens(tokens) + functional.embedding(positions, decoder.embed_positions.weight)
        seen = torch.arange(in_n_layer_self_k_cache.shape[2], device=tokens.device)[:end] <= positions[:, None]
        keys, values = [], []
        for i, layer in enumerate(decoder.layers):
            y = layer.self_attn_layer_norm(x)
            k = torch.cat([in_n_layer_self_k_cache[i, :, :start], layer.self_attn.k_proj(y)], 1)
            v = torch.cat([in_n_layer_self_v_cache[i, :, :start], layer.self_attn.v_proj(y)], 1)
            x = x + attend(layer.self_attn, y, k, v, seen)
            y = layer.encoder_attn_layer_norm(x)
            x = x + attend(layer.encoder_attn, y, n_layer_cross_k[i], n_layer_cross_v[i])
            x = x + feed_forward(layer, x)
            keys.append(torch.cat([k, in_n_layer_self_k_cache[i, :, end:]], 1))
            values.append(torch.cat([v, in_n_layer_self_v_cache[i, :, end:]], 1))
        x = decoder.layer_norm(x)
        logits = (decoder.embed_tokens.weight @ x.transpose(1, 2)).transpose(1, 2) if self.share else self.output(x)
        return {"logits": logits, "out_n_layer_self_k_cache": torch.stack(keys),
                "out_n_layer_self_v_cache": torch.stack(values)}


def is_tied(model: Any) -> bool:
    """Whether the output of a plain model multiplies by the table of embeddings."""
    output, table = model.proj_out, model.model.decoder.embed_tokens
    return (isinstance(output, nn.Linear) and output.bias is None and isinstance(table, nn.Embedding)
            and torch.equal(output.weight, table.weight))


def attend(attention: Any, x: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
    """Attention of x (N, n, d_model) to keys and values (N, m, d_model); `seen` (n, m) says what each may look at."""
    def heads(one: Tensor) -> Tensor:
        return one.view(one.shape[0], one.shape[1], attention.num_heads, -1).transpose(1, 2)

    scores = heads(attention.q_proj(x) * attention.scaling) @ heads(k).transpose(2, 3)
    if seen is not None:
        scores = scores.masked_fill(~seen, -torch.inf)
    return attention.out_proj((scores.softmax(3) @ heads(v)).transpose(1, 2).flatten(2))


def feed_forward(layer: Any, x: Tensor) -> Tensor:
    """The feed-forward part of a layer, x (N, n, d_model), without the sum with x."""
    return layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(x))))


def export_whisper(model: nn.Module, folder: Path | str, vocabulary: Sequence[bytes], precision: str = "float32",
                   mel: Tensor | None = None, tolerance: float | None = None) -> Exported:
    """Write encoder.onnx, decoder.onnx and tokens.txt into `folder`, for `sherpa_onnx.OfflineRecognizer.from_whisper`.

    `vocabulary`: the bytes of each ordinary token, in the order of ids. `precision`: float32, or int8-dynamic, which
    stores the weights of products as int8 with a scale per output. `mel`: log-mel energies (1, mels, 3000) of real
    speech for the comparison with torch, noise unless given. `tolerance`: of float32 the largest difference, relative
    to the largest output where that is above 1 (0.0001 unless given), of int8 the mean divergence in nats (0.05).
    Errors: UserError for another model or precision, for a model that sherpa-onnx cannot run, and where torch and
    onnxruntime do not agree; nothing is written then.
    """
    if precision not in PRECISIONS:
        raise UserError(f"there is no precision '{precision}' of Whisper; there are {', '.join(PRECISIONS)}")
    if not is_whisper(model):
        raise UserError(f"a {type(model).__name__} is not a Whisper model; give a WhisperForConditionalGeneration")
    entries, table = metadata(model, vocabulary), tokens_txt(vocabulary, model.config.vocab_size)  # type: ignore
    encoder, decoder = convert(model, entries, share=precision == "float32")
    if precision == "int8-dynamic":
        encoder, decoder = quantized(encoder), quantized(decoder)
    agreement = compare(model, encoder, decoder, precision, mel, tolerance)
    contents = (encoder, decoder, table.encode())
    with ExitStack() as stack:  # files are renamed once all of them are written
        for name, content in zip(FILES, contents, strict=True):
            stack.enter_context(atomic(Path(folder, name))).write_bytes(content)
    return Exported(Path(folder), sum(map(len, contents)), agreement)


def is_whisper(model: nn.Module) -> bool:
    """Whether it is a `WhisperForConditionalGeneration`, compressed or not."""
    return any(one.__name__ == "WhisperForConditionalGeneration" for one in type(model).__mro__)


@torch.no_grad()
def convert(model: nn.Module, entries: dict[str, str], share: bool = True) -> tuple[bytes, bytes]:
    """The float32 encoder, with metadata, and the decoder. Errors: UserError where torch cannot export them, and where
    the encoder differs on fewer frames than 30 s."""
    simple: Any = plain(model)
    config, encoder, decoder = simple.config, Encoder(simple), Decoder(simple, share)
    mel = noise(config)
    made = traced.convert(encoder, {"mel": mel}, dynamic={
        "mel": {0: "n_audio", 2: "T"}, "n_layer_cross_k": {1: "n_audio"}, "n_layer_cross_v": {1: "n_audio"}})
    traced.check(encoder, made, [{"mel": mel[:, :, :302].expand(2, -1, -1)}])
    caches = torch.zeros(config.decoder_layers, 1, config.max_target_positions, config.d_model)
    inputs = {"tokens": torch.tensor([[1, 2, 3]]), "in_n_layer_self_k_cache": caches,
              "in_n_layer_self_v_cache": caches.clone(), **encoder(mel), "offset": torch.tensor([2])}
    axes = {name: {1: "n_audio"} for name in inputs if name.startswith(("in_", "n_layer"))}
    axes |= {name: {1: "n_audio", 2: "T"} for name in inputs if name.startswith("n_layer")}
    made_decoder = traced.convert(decoder, inputs, dynamic=axes | {"tokens": {0: "n_audio", 1: "n_tokens"}})
    proto = onnx.ModelProto.FromString(made.data)
    onnx.helper.set_model_props(proto, {"model_author": "asrcompress", **entries})
    return proto.SerializeToString(), made_decoder.data


def quantized(data: bytes) -> bytes:
    """A file whose products of layers multiply uint8 by int8, of which each output has its scale.

    Products of two inputs and convolutions stay in float32, and a table of embeddings that is no layer's weight.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    proto = onnx.ModelProto.FromString(data)
    tables = [(node.output[0], weight.name) for node, weight in _tables(proto)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        quantize_dynamic(proto, path, op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QInt8,
                         per_channel=True)
        small = onnx.load(path)
    for output, weight in tables:
        _look_up(small, output, weight)
    return small.SerializeToString()


def _tables(proto: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, onnx.TensorProto]]:
    """(node, weight) of each look-up in a table that is, transposed, the weight of a product."""
    stored = {one.name: one for one in proto.graph.initializer}
    matrices = [stored[node.input[1]] for node in proto.graph.node
                if node.op_type == "MatMul" and node.input[1] in stored]
    for node in proto.graph.node:
        table = stored.get(node.input[0]) if node.op_type == "Gather" and node.input else None
        for weight in matrices if table is not None and len(table.dims) == 2 else []:
            if list(weight.dims) == list(table.dims)[::-1] and np.array_equal(  # type: ignore[union-attr]
                    numpy_helper.to_array(weight), numpy_helper.to_array(table).T):  # type: ignore[arg-type]
                yield node, weight
                break


def _look_up(proto: onnx.ModelProto, output: str, weight: str) -> None:
    """Let the look-up of this output read the int8 weight (d_model, vocabulary) of a product, and drop its table."""
    graph, make = proto.graph, helper.make_node
    at, node = next((i, one) for i, one in enumerate(graph.node) if output in one.output)
    table, tokens = node.input
    graph.node.remove(node)
    for new in reversed((make("Gather", [f"{weight}_quantized", tokens], [f"{output}_int8"], axis=1),
                         make("Cast", [f"{output}_int8"], [f"{output}_steps"], to=onnx.TensorProto.FLOAT),
                         make("Gather", [f"{weight}_scale", tokens], [f"{output}_scale"], axis=0),
                         make("Mul", [f"{output}_steps", f"{output}_scale"], [f"{output}_first"]),
                         make("Transpose", [f"{output}_first"], [output], perm=[1, 2, 0]))):
        graph.node.insert(at, new)
    if not any(table in one.input for one in graph.node):
        graph.initializer.remove(next(one for one in graph.initializer if one.name == table))


@torch.no_grad()
def compare(model: nn.Module, encoder: bytes, decoder: bytes, precision: str, mel: Tensor | None = None,
            tolerance: float | None = None) -> str:
    """How closely onnxruntime agrees with the model's own forward, in words, on `mel` (1, mels, 3000) and some tokens.

    The tokens are the start of a transcript, then random ones, one at a time. Errors: UserError where they differ by
    more than `tolerance`, see `export_whisper`.
    """
    reference: Any = copy_model(model).float().eval()
    config, ids = reference.config, special_ids(reference)
    mel = noise(config) if mel is None else mel.float()
    random = torch.randint(ids["eot"], (1, STEPS), generator=torch.Generator().manual_seed(0))
    tokens = torch.cat([torch.tensor([[ids["sot"], ids["transcribe"], ids["no_timestamps"]]]), random], 1)
    hidden = reference.model.encoder(mel)[0]
    layers = [layer.encoder_attn for layer in reference.model.decoder.layers]
    wanted = [torch.stack([layer.k_proj(hidden) for layer in layers]).numpy(),
              torch.stack([layer.v_proj(hidden) for layer in layers]).numpy(),
              reference(encoder_outputs=(hidden,), decoder_input_ids=tokens, use_cache=False).logits.numpy()]
    keys, values = run(session(encoder), None, {"mel": mel.numpy()})
    step = stepper(decoder, config, keys, values)
    logits = np.concatenate([step(tokens[:, :3].numpy()), *(step(tokens[:, i: i + 1].numpy())
                                                            for i in range(3, tokens.shape[1]))], 1)
    if precision == "int8-dynamic":
        most = TOLERANCES[precision] if tolerance is None else tolerance
        other, divergence = distance(*(torch.from_numpy(one[0]).log_softmax(1).numpy() for one in (logits, wanted[2])))
        if not divergence <= most:
            raise UserError(f"the int8 model diverges from torch by {divergence:.3g} nats, more than {most:g}; take "
                            "precision float32; nothing was written")
        return f"best token of {100 * (1 - other):.0f} % of {len(logits[0])} steps, divergence {divergence:.1e} nats"
    most, largest = traced.TOLERANCE if tolerance is None else tolerance, 0.0
    for name, found, expected in zip(("keys", "values", "logits"), (keys, values, logits), wanted, strict=True):
        largest = max(largest, error := gap(found, expected, jumps(model)) / max(1.0, float(np.abs(expected).max())))
        if not error <= most:
            raise UserError(f"{name} of the ONNX model differ from torch's by {error:.3g} of the largest value, more "
                            f"than {most:g}; nothing was written")
    return f"outputs equal within {largest:.1e}"


def stepper(decoder: bytes | Path, config: Any, keys: Array, values: Array) -> Callable[[Array], Array]:
    """A function of the next tokens (N, n) that returns their logits (N, n, vocabulary), and keeps the caches.

    `keys`, `values`: of cross-attention, from the encoder's file. `config`: the model's.
    """
    running, position = session(decoder), 0
    self_keys = np.zeros((keys.shape[0], keys.shape[1], config.max_target_positions, config.d_model), np.float32)
    self_values = self_keys.copy()

    def step(tokens: Array) -> Array:
        nonlocal position, self_keys, self_values
        logits, self_keys, self_values = run(running, None, {
            "tokens": tokens, "in_n_layer_self_k_cache": self_keys, "in_n_layer_self_v_cache": self_values,
            "n_layer_cross_k": keys, "n_layer_cross_v": values, "offset": np.array([position])})
        position += tokens.shape[1]
        return logits  # type: ignore[no-any-return]

    return step


def noise(config: Any) -> Tensor:
    """Seeded log-mel energies (1, mels, frames) of 30 s, in the range of Whisper's."""
    frames = 2 * config.max_source_positions
    return torch.rand(1, config.num_mel_bins, frames, generator=torch.Generator().manual_seed(0)) * 2 - 0.8
