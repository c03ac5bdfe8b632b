"""adapters: how a dense model is built again from what a file says of it, with nothing of the file executed.

    {"adapter": "asrcompress", "config": {...}}                          our models, from their config
    {"adapter": "transformers", "class": "...", "config": {...}}         Hugging Face's, from theirs, nothing downloaded
    {"adapter": "callable", "class": "Net", "config": {...}}             any other, by the caller's `build`
"""

import dataclasses
import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from asrcompress.compression.parametrization import original_class
from asrcompress.errors import UserError

Build = Callable[[Mapping[str, Any]], nn.Module]


def is_ours(model: nn.Module) -> bool:
    """Whether a model is one of asrcompress.models."""
    return original_class(model).__module__.startswith("asrcompress.models.")


def describe(model: nn.Module) -> dict[str, Any]:
    """The plain JSON from which `builder` builds the dense model again.

    Errors: UserError where the model's config is no mapping or dataclass, or not plain JSON.
    """
    kind = original_class(model)
    if is_ours(model):
        return {"adapter": "asrcompress", "config": _plain(model.config)}
    if kind.__module__.startswith("transformers.models.") and hasattr(model, "config"):
        return {"adapter": "transformers", "class": f"{kind.__module__}.{kind.__qualname__}", **_transformers(model),
                **({"recogniser": _plain(model.recogniser)} if hasattr(model, "recogniser") else {})}
    return {"adapter": "callable", "class": kind.__qualname__, "config": _mapping(getattr(model, "config", None))}


def _mapping(config: Any) -> Any:
    """What `build` is called with: plain JSON of a config, whose fields are keys; nothing of a model without one."""
    if hasattr(config, "to_json_string"):  # Hugging Face's, of a class of one's own
        return json.loads(config.to_json_string(use_diff=False))
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return _plain(dataclasses.asdict(config))
    if config is not None and not isinstance(config, Mapping):
        raise UserError(f"the model's config is a {type(config).__name__}, which no file can carry for build(config); "
                        "let model.config be a dict or a dataclass")
    return _plain(dict(config or {}))


def _plain(config: Any) -> Any:
    try:
        return json.loads(json.dumps(config))
    except (TypeError, ValueError) as error:
        raise UserError(f"the model's config is not plain JSON ({error}), so no file can carry it") from None


def _transformers(model: Any) -> dict[str, Any]:
    """Hugging Face's own JSON, and what that leaves out."""
    said = {"config": json.loads(model.config.to_json_string(use_diff=False)),
            "attention": getattr(model.config, "_attn_implementation", None)}
    generation = getattr(model, "generation_config", None)
    return said if generation is None else {**said, "generation": json.loads(generation.to_json_string(use_diff=True))}


def builder(description: Mapping[str, Any], build: Build | None, where: str) -> Callable[[], nn.Module]:
    """What builds the dense model of a description; `build` comes before the adapter's own way.

    `where` begins the sentence of an error. Errors: UserError where `build` is needed and missing, for an adapter of a
    newer version, and where transformers is not installed.
    """
    adapter, config = description.get("adapter"), description.get("config")
    if build is not None:
        return lambda: build(config)  # type: ignore[arg-type]
    if adapter == "asrcompress":
        from asrcompress import models

        return lambda: models.build(config)  # type: ignore[arg-type]
    if adapter == "transformers":
        return _hugging_face(description, where)
    if adapter == "callable":
        raise UserError(f"{where}: a {description.get('class')} is not rebuilt from its config by itself, as our "
                        "models and Hugging Face's are; give build=FUNCTION, which makes the dense model from "
                        "model.config")
    raise UserError(f"{where}: its model is built by {adapter!r}, which this version does not know; use a newer one")


def _hugging_face(description: Mapping[str, Any], where: str) -> Callable[[], nn.Module]:
    module, _, name = str(description.get("class")).rpartition(".")
    if not module.startswith("transformers.models."):
        raise UserError(f"{where}: its class {description.get('class')!r} is none of transformers")
    try:
        from transformers import GenerationConfig, PreTrainedModel

        kind: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise UserError(f"{where}: its {name} needs transformers with {module}; pip install transformers, or a version "
                        "that has it") from None
    if not (inspect.isclass(kind) and issubclass(kind, PreTrainedModel)):
        raise UserError(f"{where}: its class {name} is no model of transformers")

    def make() -> nn.Module:
        config_class: Any = kind.config_class
        config = config_class.from_dict(dict(description["config"]))
        if attention := description.get("attention"):
            config._attn_implementation = attention
        model = kind(config)
        if generation := description.get("generation"):
            model.generation_config = GenerationConfig.from_dict(generation)
        if recogniser := description.get("recogniser"):  # asrcompress.recognisers: features, tokens
            model.recogniser = recogniser
        return model

    return make


def example(model: nn.Module) -> tuple[Tensor, ...] | None:
    """Random inputs of a model whose inputs are known, ours, on its device: x (2, 200, features) and lengths; None of
    any other."""
    if not is_ours(model):
        return None
    config: Any = model.config
    x = torch.randn(2, 200, int(config["features"]), generator=torch.Generator().manual_seed(0))
    device = next(model.parameters()).device
    return x.to(device), torch.tensor([200, 151], device=device)
