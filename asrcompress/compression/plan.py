"""plan: which layers are compressed, and how."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True)
class Plan:
    """One compression of one model.

    `size` is the numbers (all parameters) of the whole compressed model as a fraction of the dense one's, what stays
    dense included on both sides: at size 0.25 the packed file is at most a quarter of the dense packed file, header
    aside. `include` and `exclude` are globs over layer paths (`layers.*.conv`); `options` are the structure's,
    `budget_options` the budget's. With size None the structure's options (`rank`, `energy`) say how much is kept.
    `quantization` says how the parameters are represented that then remain, of the tensors that its own globs select,
    and `coder` ({"coder": "range", "options": {}, "vectors": "float16"}) what `packed.save` stores them with.
    """

    structure: str = "svd"
    size: float | None = 0.25
    budget: str = "global_greedy"
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    budget_options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    quantization: str = "float32"
    quantization_options: Mapping[str, Any] = field(default_factory=dict)
    quantization_include: tuple[str, ...] = ("*",)
    quantization_exclude: tuple[str, ...] = ()
    coder: Mapping[str, Any] = field(default_factory=dict)

    def selects(self, path: str) -> bool:
        """Whether the layer at this path is to be compressed."""
        return any(fnmatchcase(path, glob) for glob in self.include) and not any(
            fnmatchcase(path, glob) for glob in self.exclude
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Plan":
        """The plan of a plain config as `conf/compress.yaml` composes it."""
        (structure, options), (budget, shared_out) = (_method(config[group]) for group in ("structure", "budget"))
        quantization, coder = config.get("quantization") or {"name": "float32"}, config.get("coder") or {"name": "raw"}
        beside = ("name", "include", "exclude", "vectors")
        stored = {"coder": coder["name"], "options": {key: value for key, value in coder.items() if key not in beside},
                  "vectors": coder.get("vectors", "float32")}
        return cls(structure, config["size"], budget, tuple(config["include"]), tuple(config["exclude"]), options,
                   shared_out, config["seed"], quantization["name"],
                   {key: value for key, value in quantization.items() if key not in beside},
                   tuple(quantization.get("include", ["*"])), tuple(quantization.get("exclude", [])),
                   stored)


def _method(entry: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name of a method of a config, and its options."""
    return entry["name"], {key: value for key, value in entry.items() if key != "name"}
