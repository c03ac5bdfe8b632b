"""Compression during training: every module of this folder without a leading underscore is a `base.Schedule`."""

from collections.abc import Mapping
from typing import Any

from asrcompress import registry
from asrcompress.compression import Plan
from asrcompress.errors import UserError
from asrcompress.options import make, require
from asrcompress.training.options import TrainingOptions
from asrcompress.training.schedules.base import Schedule

__all__ = ["Schedule", "build", "family", "methods", "names"]


def names() -> tuple[str, ...]:
    """Every schedule there is, sorted, beside none."""
    return registry.names(__name__)


def family(name: str) -> type[Schedule]:
    """The class of a schedule. Errors: UserError for an unknown name."""
    return registry.member(__name__, name, Schedule, "is no schedule", beside=("none",))


def methods() -> dict[str, type]:
    """Every schedule by name, with its options dataclass."""
    return {name: family(name).Options for name in names()}


def build(config: Mapping[str, Any], training: TrainingOptions) -> list[Schedule]:
    """What a config as `conf/train.yaml` composes it asks for: nothing, or one callback.

    Errors: UserError for options that do not exist or do not go together.
    """
    name, structure = config["schedule"]["name"], config["structure"]["name"]
    if name != "none":
        given = {key: value for key, value in config["schedule"].items() if key != "name"}
        cls = family(name)
        return [cls(Plan.from_config(config), make(cls.Options, given, f"schedule {name}"), training)]
    known = " or ".join(", ".join(names()).rsplit(", ", 1))
    require(len(config["schedule"]) == 1, f"schedule none has no options; choose {known}")
    if structure != "dense":
        raise UserError(f"structure={structure} has no effect on a training without schedule=...; choose {known}, or "
                        "compress a trained model by `asrcompress compress`")
    return []
