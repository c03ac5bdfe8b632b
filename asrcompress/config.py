"""Hydra configs: the YAML files of `conf/`, over schemas made from the options dataclasses of the code.

A file `conf/GROUP/NAME.yaml` begins its defaults list with `NAME_schema` (of models: that of the family), so every
option of the method can be set without `+`, and an unknown one is an error.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, field, fields, make_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from asrcompress.errors import UserError

HERE = Path(__file__).resolve().parent
# Where the methods of a group of `conf/` are, and the keys that a file of the group has beside their options. Each package
# offers `methods()`: its members by name, each with its options dataclass.
GROUPS: dict[str, tuple[str, dict[str, Any]]] = {
    "structure": ("asrcompress.compression.structures", {}),
    "quantization": ("asrcompress.compression.quantization", {"include": ["*"], "exclude": []}),
    "coder": ("asrcompress.compression.coders", {"vectors": "float32"}),
    "budget": ("asrcompress.compression.budget", {}),
    "criterion": ("asrcompress.training.criteria", {}),
    "schedule": ("asrcompress.training.schedules", {}),
    "model": ("asrcompress.models", {}),
}


def folder() -> Path:
    """The folder of the YAML files: the clone's `conf/`, or beside this file where a wheel was installed."""
    clone = HERE.parent / "conf"
    return clone if clone.is_dir() else HERE / "conf"


def compose(name: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """`conf/<name>.yaml` with `group=choice` and `key=value` overrides, resolved to plain dicts and lists."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    register()
    try:
        with initialize_config_dir(str(folder()), version_base="1.3"):
            config = OmegaConf.to_container(hydra_compose(name, list(overrides)), resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # hydra raises ValueError for model=3
        message = " ".join(str(error).split())
        raise UserError(f"the configuration {name} with [{' '.join(overrides)}] is not valid: {message}") from None
    assert isinstance(config, dict)
    return config


def register() -> None:
    """Store a schema for every method: `NAME_schema` in the group of its axis."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    for group, name, options, extra in methods():
        store.store(group=group, name=f"{name}_schema", node=schema(name, options, extra))


def methods() -> Iterator[tuple[str, str, type, Mapping[str, Any]]]:
    """(group, name, options dataclass, further keys with their defaults) of every method that a config can name."""
    for group, (package, extra) in GROUPS.items():
        offered = getattr(importlib.import_module(package), "methods", dict)()
        yield from ((group, name, options, extra) for name, options in offered.items())


def schema(name: str, options: type, extra: Mapping[str, Any]) -> type:
    """A dataclass for OmegaConf: `name`, the fields of the options, and `extra` keys.

    It is not frozen, as overrides have to go in, and a Literal is a str there: `options.make` checks the choice.
    """
    hints = get_type_hints(options)
    columns: list[Any] = [("name", str, name)]
    for one in fields(options):
        default = one.default_factory if one.default_factory is not MISSING else one.default
        if default is MISSING:
            columns.append((one.name, _plain(hints[one.name]), "???"))
        elif isinstance(default, tuple) or callable(default):
            values = default() if callable(default) else default
            columns.append((one.name, _plain(hints[one.name]), field(default_factory=lambda v=values: list(v))))
        else:
            columns.append((one.name, _plain(hints[one.name]), default))
    for key, value in extra.items():
        kind = list[str] if isinstance(value, list) else type(value)
        columns.append((key, kind, field(default_factory=lambda v=value: list(v)) if isinstance(value, list) else value))
    return make_dataclass(f"{name}_schema", columns)


def _plain(hint: Any) -> Any:
    """A field's type as OmegaConf knows it."""
    if get_origin(hint) is Literal:
        return str
    if get_origin(hint) is tuple:
        return list[get_args(hint)[0]]  # type: ignore[misc]
    kinds = get_args(hint)
    if type(None) in kinds:
        inner = [kind for kind in kinds if kind is not type(None)]
        return _plain(inner[0]) | None if len(inner) == 1 else Any
    return hint
