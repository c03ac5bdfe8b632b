"""What sherpa-onnx reads of a Whisper model beside its graph: sizes, ids of special tokens, and tokens.txt.

OpenAI's vocabularies end alike: end of text, start of a transcript, the languages, six special tokens, and a token for
each 0.02 s of 30 s. Ids that a model does not tell are counted from there.
"""

import base64
from collections.abc import Sequence
from typing import Any

from asrcompress.errors import UserError

POSITIONS = 1500  # of the encoder: sherpa-onnx gives up to 30 s, of which two frames of 10 ms make one position
OPENAI = {51864: False, 51865: True, 51866: True}  # sizes of OpenAI's vocabularies: whether it is of many languages
TIMES = 1501


def metadata(model: Any, vocabulary: Sequence[bytes]) -> dict[str, str]:
    """The metadata of encoder.onnx, of a `WhisperForConditionalGeneration`.

    Errors: UserError for a model of less than 30 s, and for one whose ids are neither given nor of OpenAI's layout.
    """
    config = model.config
    if config.max_source_positions < POSITIONS:
        raise UserError(f"the encoder has {config.max_source_positions} positions, and sherpa-onnx gives it up to "
                        f"30 s, which are {POSITIONS}; take a model of that many")
    ids = special_ids(model)
    languages = _languages(model, ids) if ids["is_multilingual"] else {}
    first = languages.get("en", next(iter(languages.values()), 0))
    blank = vocabulary.index(b" ") if b" " in vocabulary else ids["eot"]
    found: dict[str, Any] = {
        "model_type": "whisper-asrcompress", "version": 1, "n_mels": config.num_mel_bins,
        "n_audio_ctx": config.max_source_positions, "n_audio_state": config.d_model,
        "n_audio_head": config.encoder_attention_heads, "n_audio_layer": config.encoder_layers,
        "n_vocab": config.vocab_size, "n_text_ctx": config.max_target_positions, "n_text_state": config.d_model,
        "n_text_head": config.decoder_attention_heads, "n_text_layer": config.decoder_layers, **ids, "sot_index": 0,
        "blank_id": blank, "sot_sequence": _list([ids["sot"], first, ids["transcribe"]] if languages else [ids["sot"]]),
        "all_language_tokens": _list(languages.values()), "all_language_codes": _list(languages),
        "non_speech_tokens": _list(_field(model, "suppress_tokens") or [])}
    return {name: str(value) for name, value in found.items()}


def special_ids(model: Any) -> dict[str, int]:
    """Ids of special tokens by sherpa-onnx's names, and is_multilingual, 0 or 1. Errors: UserError."""
    size, tasks = model.config.vocab_size, _field(model, "task_to_id") or {}
    no_timestamps = _field(model, "no_timestamps_token_id")
    if no_timestamps is None:
        if size not in OPENAI:
            raise UserError(f"no_timestamps_token_id is not in the model's generation_config, and its vocabulary of "
                            f"{size} tokens is not one of OpenAI's ({', '.join(map(str, OPENAI))}); set it there")
        no_timestamps = size - TIMES - 1
    many = _field(model, "is_multilingual")
    if many is None:
        many = bool(_field(model, "lang_to_id")) or OPENAI.get(size, False)
    end = _field(model, "eos_token_id")
    found = {"sot": _field(model, "decoder_start_token_id"), "eot": end[0] if isinstance(end, list) else end,
             "translate": tasks.get("translate", no_timestamps - 5),
             "transcribe": tasks.get("transcribe", no_timestamps - 4), "sot_lm": no_timestamps - 3,
             "sot_prev": no_timestamps - 2, "no_speech": no_timestamps - 1, "no_timestamps": no_timestamps}
    if size in OPENAI:
        text = 50256 + OPENAI[size]  # how many ordinary tokens
        found = {"sot": text + 1, "eot": text} | {name: one for name, one in found.items() if one is not None}
    for name, number in found.items():
        if number is None or not 0 <= number < size:
            raise UserError(f"the id of {name} is {number}, and the model has tokens 0 to {size - 1}; set "
                            "decoder_start_token_id, eos_token_id, no_timestamps_token_id and task_to_id in its "
                            "generation_config")
    return found | {"is_multilingual": int(many)}


def tokens_txt(vocabulary: Sequence[bytes], size: int) -> str:
    """Lines of a token's bytes in base64 and its id; sherpa-onnx says nothing for ids without a line.

    Tokens of no bytes have none. Errors: UserError for more tokens than the model's `size`.
    """
    if not vocabulary or len(vocabulary) > size:
        raise UserError(f"the vocabulary has {len(vocabulary)} tokens, and the model {size}; give the bytes of each "
                        "ordinary token, in the order of ids")
    return "".join(f"{base64.b64encode(token).decode()} {i}\n" for i, token in enumerate(vocabulary) if token)


def _languages(model: Any, ids: dict[str, int]) -> dict[str, int]:
    """Ids of languages by their codes."""
    if given := _field(model, "lang_to_id"):
        return {name.strip("<|>"): number for name, number in given.items()}
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    count = min(ids["translate"], ids["transcribe"]) - ids["sot"] - 1
    if not 0 < count <= len(LANGUAGES):
        raise UserError(f"lang_to_id is not in the model's generation_config, and {count} tokens stand where OpenAI's "
                        "vocabularies have the languages; set it there")
    return {code: ids["sot"] + 1 + i for i, code in enumerate(list(LANGUAGES)[:count])}


def _field(model: Any, name: str) -> Any:
    """A field of the model's generation_config, or of its config; None where neither has it."""
    for config in (model.generation_config, model.config):
        if (value := getattr(config, name, None)) is not None:
            return value
    return None


def _list(values: Any) -> str:
    return ",".join(map(str, values))
