"""Whisper of Hugging Face's as the file that whisper.cpp reads, its matrices in blocks of one of ggml's types.

Run: python benchmarks/whisper_ggml.py --hf exp/whisper-tiny --type q5_0 --out exp/tiny-q5_0.bin   (or q8_0, f16)
Needs the package gguf, whose quantizers these are. As whisper.cpp's own tools do, convolutions are float16, vectors and
positional embeddings float32. The format: models/README.md of whisper.cpp and what its `whisper_model_load` reads.
"""

import argparse
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from asrcompress import recognisers
from asrcompress.files import atomic

MAGIC, BLOCKS_VERSION = 0x67676d6c, 2
FILE_TYPES = {"f16": 1, "q8_0": 7, "q5_0": 8}  # of the whole file; tensors have ggml's own numbers
NAMES = (  # of Hugging Face's, in OpenAI's words
    (r"^model\.", ""), (r"\.layers\.", ".blocks."), ("self_attn_layer_norm", "attn_ln"), ("self_attn", "attn"),
    ("encoder_attn_layer_norm", "cross_attn_ln"), ("encoder_attn", "cross_attn"), ("final_layer_norm", "mlp_ln"),
    ("encoder.layer_norm", "encoder.ln_post"), ("decoder.layer_norm", "decoder.ln"), ("fc1", "mlp.0"), ("fc2", "mlp.2"),
    ("k_proj", "key"), ("q_proj", "query"), ("v_proj", "value"), ("out_proj", "out"),
    ("embed_positions.weight", "positional_embedding"), ("embed_tokens", "token_embedding"))


def pieces(folder: Path, kind: str) -> Iterator[bytes]:
    """The file, from its sizes to its tensors."""
    from gguf import GGMLQuantizationType, quants

    recogniser = recognisers.load(f"hf:{folder}")
    config, vocabulary = recogniser.model.config, recogniser.vocabulary
    filters = np.ascontiguousarray(recogniser.extractor.mel_filters.T, np.float32)
    file_type = FILE_TYPES[kind] + (1000 * BLOCKS_VERSION if kind != "f16" else 0)
    yield struct.pack(
        "<12i", MAGIC, config.vocab_size, config.max_source_positions, config.d_model, config.encoder_attention_heads,
        config.encoder_layers, config.max_target_positions, config.d_model, config.decoder_attention_heads,
        config.decoder_layers, config.num_mel_bins, file_type)
    yield struct.pack("<2i", *filters.shape) + filters.tobytes()
    yield struct.pack("<i", len(vocabulary))
    for token in vocabulary:
        yield struct.pack("<i", len(token)) + token
    for name, tensor in recogniser.model.state_dict().items():
        if name == "proj_out.weight":  # the embedding of the tokens
            continue
        for pattern, ours in NAMES:
            name = re.sub(pattern, ours, name)
        values = tensor.float().numpy()
        if re.fullmatch(r"encoder\.conv\d\.bias", name):
            values = values[:, None]
        exact = values.ndim < 2 or name.endswith(".bias") or "positional" in name
        stored = GGMLQuantizationType[("f32" if exact else kind if values.ndim == 2 else "f16").upper()]
        yield struct.pack(f"<3i{values.ndim}i", values.ndim, len(name), stored, *reversed(values.shape)) + name.encode()
        yield quants.quantize(np.ascontiguousarray(values), stored).tobytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hf", type=Path, required=True, help="folder of Hugging Face's")
    parser.add_argument("--type", choices=FILE_TYPES, required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    args = parser.parse_args()
    with atomic(args.out) as temporary, open(temporary, "wb") as file:
        for piece in pieces(args.hf, args.type):
            file.write(piece)


if __name__ == "__main__":
    main()
