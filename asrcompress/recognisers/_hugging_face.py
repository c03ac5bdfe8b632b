"""Models of Hugging Face's, from a folder or the hub's cache: safetensors only, and no code of a repository is run."""

import json
from pathlib import Path
from typing import Any

from torch import nn

from asrcompress.errors import UserError

KINDS = {"WhisperForConditionalGeneration": "whisper"}  # and every ...ForCTC


def load(name: str) -> nn.Module:
    """The model of a folder or a name on the hub, float32, in eval mode, with `model.recogniser`.

    Errors: UserError where there is no such model, its weights are no safetensors, or it is no recogniser.
    """
    try:
        import transformers
    except ImportError:
        raise UserError("models of Hugging Face need transformers; pip install transformers") from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
        architecture = next(iter(config.architectures or ()), "")
        kind = KINDS.get(architecture, "hugging_ctc" if architecture.endswith("ForCTC") else None)
        if kind is None:
            raise UserError(f"hf:{name} is a {architecture or 'model without a class'}; recognisers are "
                            f"{', '.join(KINDS)} and models for CTC")
        # Half-precision files are computed with as float32, as the files of ours are.
        model = getattr(transformers, architecture).from_pretrained(name, use_safetensors=True, dtype="float32")
        features = _features(transformers.AutoFeatureExtractor.from_pretrained(name))
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"hf:{name} cannot be loaded: {_short(error)}; give a folder with config.json, "
                        "model.safetensors, preprocessor_config.json and its tokenizer, or a name of the hub") from None
    vocabulary = _vocabulary(tokenizer)
    if kind == "whisper":
        vocabulary = vocabulary[:model.generation_config.eos_token_id]  # no special ones
    said = {"kind": kind, "features": features, "vocabulary": vocabulary}
    if kind == "whisper":
        said["spelling"] = _spelling(name)
    else:
        said |= {"blank": config.pad_token_id, "space": getattr(tokenizer, "word_delimiter_token", None) or "|"}
    model.recogniser = said
    return model.eval()


def _features(extractor: Any) -> dict[str, Any]:
    """The settings of a feature extractor as plain JSON, without the tables that follow from them."""
    return {key: value for key, value in json.loads(extractor.to_json_string()).items()
            if key not in ("mel_filters", "feature_extractor_type", "processor_class", "image_processor_type")}


def _vocabulary(tokenizer: Any) -> list[str]:
    """Token by id. Errors: UserError where numbers are left out."""
    numbers = {number: token for token, number in tokenizer.get_vocab().items()}
    return [numbers.get(number, "") for number in range(max(numbers) + 1)]


def _spelling(name: str) -> dict[str, str]:
    """British to American words of normalizer.json, where the folder has one; it counts only for WERs."""
    path = Path(name) / "normalizer.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _short(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")[:300]
