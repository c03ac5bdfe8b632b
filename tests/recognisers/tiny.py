"""Random recognisers of tiny size, as Hugging Face keeps them, and waves."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.convert_slow_tokenizer import bytes_to_unicode

SPECIAL = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>")  # from 256 on
VOCABULARY = 256 + len(SPECIAL) + 1501  # and the timestamps


def whisper(folder: Path) -> Path:
    """Write a Whisper whose tokens are the 256 bytes, English only."""
    from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    torch.manual_seed(1)
    config = WhisperConfig(
        vocab_size=VOCABULARY, num_mel_bins=80, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=48, d_model=32, max_target_positions=24,
        pad_token_id=256, bos_token_id=256, eos_token_id=256, decoder_start_token_id=257, init_std=0.3)
    model: Any = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig.from_dict({
        "max_length": 24, "decoder_start_token_id": 257, "eos_token_id": 256, "pad_token_id": 256, "bos_token_id": 256,
        "is_multilingual": False, "no_timestamps_token_id": 260, "suppress_tokens": [], "begin_suppress_tokens": [256],
        "alignment_heads": [[0, 0]]})
    model.save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    characters = list(bytes_to_unicode().values())
    _tokenizer({character: number for number, character in enumerate(characters)}, SPECIAL, folder)
    return folder


def _tokenizer(vocabulary: dict[str, int], special: Sequence[str], folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE(vocabulary, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, special=True) for token in special])
    PreTrainedTokenizerFast(tokenizer_object=made).save_pretrained(folder)


def wav2vec2(folder: Path, norm: str = "group", base: bool = False) -> Path:
    """Write a wav2vec 2.0 for CTC whose tokens are letters; `base`: of the published size."""
    from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    torch.manual_seed(0)
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'"]
    config = Wav2Vec2Config(vocab_size=len(tokens), pad_token_id=0) if base else Wav2Vec2Config(
        vocab_size=len(tokens), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48,
        conv_dim=(16, 16), conv_kernel=(10, 3), conv_stride=(5, 2), num_feat_extract_layers=2,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, feat_extract_norm=norm, pad_token_id=0,
        do_stable_layer_norm=norm == "layer", initializer_range=0.5)
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=norm == "layer").save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)
    return folder


def waves(seconds: Sequence[float], tone: bool = False) -> list[tuple[str, np.ndarray, int]]:
    """Noise, or a tone of 440 Hz, named u0, u1, ..."""
    generator = np.random.default_rng(0)
    found = []
    for number, length in enumerate(seconds):
        times = np.arange(int(16000 * length)) / 16000
        samples = np.sin(2 * np.pi * 440 * times) if tone else generator.standard_normal(len(times))
        found.append((f"u{number}", (0.1 * samples).astype(np.float32), 16000))
    return found


def prepared(folder: Path, found: list[tuple[str, np.ndarray, int]]) -> Path:
    """A prepared set `dev` of waves, each with two words."""
    import soundfile
    from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

    folder.mkdir(parents=True)
    cuts, lines = [], []
    for name, samples, rate in found:
        soundfile.write(folder / f"{name}.wav", samples, rate, subtype="FLOAT")
        recording = Recording.from_file(folder / f"{name}.wav", recording_id=name)
        said = SupervisionSegment(name, name, 0.0, recording.duration, text="HELLO WORLD")
        cuts.append(MonoCut(name, 0.0, recording.duration, 0, supervisions=[said], recording=recording))
        lines.append(f"{name} HELLO WORLD\n")
    CutSet.from_cuts(cuts).to_file(folder / "dev.jsonl.gz")
    (folder / "dev.text").write_text("".join(lines))
    return folder
