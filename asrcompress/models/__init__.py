"""Acoustic models, built from a plain config. `asrcompress.save` writes one into a file that carries it.

    model = build({"model": "tdnn", "features": 80, "vocab": 40, "stack": [...]})
"""

from collections.abc import Mapping
from typing import Any

from asrcompress import options, registry
from asrcompress.models.base import AcousticModel

__all__ = ["AcousticModel", "build", "family", "methods", "names"]


def names() -> tuple[str, ...]:
    """Every model family there is, sorted."""
    return registry.names(__name__)


def family(name: str) -> type[AcousticModel]:
    """The class of a model family. Errors: UserError for an unknown name."""
    return registry.member(__name__, name, AcousticModel, "is no model family")


def methods() -> dict[str, type]:
    """Every model family by name, with its options dataclass."""
    return {name: family(name).Options for name in names()}


def build(config: Mapping[str, Any]) -> AcousticModel:
    """A model with random weights, from its plain config.

    `model` names the family, `vocab` is the number of tokens with the blank; the other keys are the family's `Options`.
    Errors: UserError for a family, a key or a value that does not exist, and for one that is missing.
    """
    name, vocab = str(config.get("model")), config.get("vocab")
    cls = family(name)
    options.require(type(vocab) is int and vocab > 0, f"model {name}: vocab is {vocab!r}; it is the number of tokens")
    given = {key: value for key, value in config.items() if key not in ("model", "vocab")}
    return cls(config, options.make(cls.Options, given, f"model {name}"))
