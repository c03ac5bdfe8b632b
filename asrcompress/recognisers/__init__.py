"""Recognisers: a model with what makes words of its outputs. Every module here without an underscore is one kind.

    recogniser = recognisers.load("hf:openai/whisper-tiny.en")     # or hf:FOLDER, a packed file, a model file
    recogniser.transcribe(waves_of_files(paths))                   # {utterance: text}
    small, report = compress(recogniser.model, quantization="int8")
    save("whisper.packed", small)                                  # carries what `of` needs
    recognisers.of(small).transcribe(...)

`Recogniser` in base.py is what a kind has to offer; docs/recognisers.md shows one of a third party. A model of Hugging
Face's has a plain dict `model.recogniser`, which its files carry: {"kind": ..., how its features are made, its tokens}.
"""

from pathlib import Path
from typing import Any

from torch import nn

from asrcompress import registry
from asrcompress.errors import UserError
from asrcompress.recognisers.base import Recogniser

__all__ = ["Recogniser", "hears_waves", "kind_of", "load", "load_model", "names", "of"]
HUB = "hf:"


def names() -> tuple[str, ...]:
    """Every kind of recogniser there is."""
    return registry.names(__name__)


def load(what: str | Path, **options: Any) -> Recogniser:
    """The recogniser of a packed file, a model file, or `hf:` and a folder or name of Hugging Face's: see `of`."""
    return of(load_model(what), **options)


def load_model(what: str | Path) -> nn.Module:
    """The model of `load`, in eval mode. Errors: UserError where there is none that can be read."""
    from asrcompress import compression

    if str(what).startswith(HUB):
        from asrcompress.recognisers import _hugging_face

        return _hugging_face.load(str(what).removeprefix(HUB))
    return compression.load(what)


def kind_of(model: nn.Module) -> str | None:
    """The kind of recogniser that a model is part of: what it says itself, `ctc` of our models, None of any other."""
    from asrcompress.compression.packed import adapters

    said = getattr(model, "recogniser", None)
    if isinstance(said, dict):
        return str(said.get("kind"))
    return "ctc" if adapters.is_ours(model) else None


def hears_waves(model: nn.Module) -> bool:
    """Whether it is a recogniser of others, calibrated on recordings: ours is calibrated on prepared features."""
    return kind_of(model) not in (None, "ctc")


def of(model: nn.Module, **options: Any) -> Recogniser:
    """The recogniser of a model; `options` are those of its kind: `lang` and `graph` of ctc, `language` and `beam` of
    whisper. Errors: UserError for a model that says nothing of what its outputs are, and for an unknown option."""
    kind = kind_of(model)
    if kind is None:
        raise UserError(f"a {type(model).__name__} does not say how its outputs become words; load it with hf: from a "
                        "folder that has its tokenizer, or give an object of your own that keeps to `Recogniser`")
    make = registry.module(__name__, kind, "is no recogniser").of
    try:
        return make(model, **options)  # type: ignore[no-any-return]
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise UserError(f"recogniser {kind}: {str(error).partition('() ')[2]}") from None
