"""Hydra configs: the YAML files of `conf/`, over schemas made from the options dataclasses of the code.

A file `conf/GROUP/NAME.yaml` begins its defaults list with `NAME_schema` (of models: that of the family), so every
option of the method can be set without `+`, and an unknown one is an error.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields, is_dataclass, make_dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from asrcompress.errors import UserError
from asrcompress.files import shipped

# Where the methods of a group of `conf/` are, and the keys that a file of the group has beside their options. Each
# package offers `methods()`: its members by name, each with its options dataclass.
GROUPS: dict[str, tuple[str, dict[str, Any]]] = {
    "structure": ("asrcompress.compression.structures", {}),
    "quantization": ("asrcompress.compression.quantization", {"include": ["*"], "exclude": []}),
    "coder": ("asrcompress.compression.coders", {"vectors": "float32"}),
    "budget": ("asrcompress.compression.budget", {}),
    "criterion": ("asrcompress.training.criteria", {}),
    "schedule": ("asrcompress.training.schedules", {}),
    "model": ("asrcompress.models", {}),
    "training": ("asrcompress.training", {}),
}
KEYS = {"model": "model", "training": None}  # the key that names the method: elsewhere `name`; training has one method


def folder() -> Path:
    """The folder of the YAML files: `asrcompress/conf` of an installed wheel, or the clone's `conf/`."""
    return shipped("conf")


def compose(name: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """`conf/<name>.yaml` with `group=choice` and `key=value` overrides, resolved to plain dicts and lists.

    Errors: UserError for an unknown key, choice or file.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    register(_groups(name))
    try:
        with initialize_config_dir(str(folder()), version_base="1.3"):
            config = OmegaConf.to_container(hydra_compose(name, list(overrides)), resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # hydra raises ValueError for model=3
        message = " ".join(str(error).split())
        raise UserError(f"the configuration {name} with [{' '.join(overrides)}] is not valid: {message}") from None
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def _groups(name: str) -> list[str]:
    """The groups that `conf/<name>.yaml` chooses from: those of other commands need not be imported."""
    import yaml

    path = folder() / f"{name}.yaml"
    defaults = yaml.safe_load(path.read_text(encoding="utf-8"))["defaults"] if path.is_file() else []
    return [group for entry in defaults if isinstance(entry, dict) for group in entry if group in GROUPS]


def register(groups: Sequence[str] = tuple(GROUPS)) -> None:
    """Store a schema for every method of some groups: `NAME_schema` in the group of its axis."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    for group, name, options, extra in methods(groups):
        store.store(group=group, name=f"{name}_schema", node=schema(name, options, extra, KEYS.get(group, "name")))


def methods(groups: Sequence[str] = tuple(GROUPS)) -> Iterator[tuple[str, str, type, Mapping[str, Any]]]:
    """(group, name, options dataclass, further keys with their defaults) of every method that a config can name."""
    for group in groups:
        package, extra = GROUPS[group]
        offered: dict[str, type] = getattr(importlib.import_module(package), "methods", dict)()
        yield from ((group, name, options, extra) for name, options in offered.items())


def schema(name: str, options: type, extra: Mapping[str, Any], key: str | None = "name") -> type:
    """A dataclass for OmegaConf: `key` with the method's name, the fields of the options, and `extra` keys.

    It is not frozen, as overrides have to go in, and a Literal is a str there: `options.make` checks the choice.
    """
    hints = get_type_hints(options)
    columns: list[Any] = [(key, str, name)] if key else []
    columns += [(one.name, _plain(hints[one.name]), _default(one, hints[one.name])) for one in fields(options)]
    for more, value in extra.items():
        kind = list[str] if isinstance(value, list) else type(value)
        columns.append((more, kind, field(default_factory=partial(list, value)) if isinstance(value, list) else value))
    return make_dataclass(f"{name}_schema", columns)


def _default(one: Field[Any], hint: Any) -> Any:
    """A field's default as OmegaConf takes it: "???" where there is none, lists for tuples, schemas for dataclasses."""
    default = one.default if one.default_factory is MISSING else one.default_factory()
    if default is MISSING:
        return "???"
    if isinstance(default, tuple):
        return field(default_factory=partial(list, default))
    return field(default_factory=_nested(type(default))) if is_dataclass(default) else default  # type: ignore[arg-type]


@cache
def _nested(options: type) -> type:
    """The schema of a dataclass inside another, which has no name of its own."""
    return schema(options.__name__, options, {}, None)


def _plain(hint: Any) -> Any:
    """A field's type as OmegaConf knows it; it leaves lists of dataclasses or lists to `options.make`."""
    if get_origin(hint) is Literal:
        return str
    if get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        return list[Any] if is_dataclass(inner) or get_args(inner) else list[inner]  # type: ignore[valid-type]
    if is_dataclass(hint) and isinstance(hint, type):
        return _nested(hint)
    kinds = get_args(hint)
    if type(None) in kinds:
        inner = [kind for kind in kinds if kind is not type(None)]
        return _plain(inner[0]) | None if len(inner) == 1 else Any
    return Any if kinds else hint
