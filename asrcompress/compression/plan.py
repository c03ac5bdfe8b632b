"""plan: which layers are compressed, and how. Every name and option is checked when a plan is made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from asrcompress import options
from asrcompress.compression import budget, coders, quantization, structures
from asrcompress.errors import UserError


@dataclass(frozen=True)
class Plan:
    """One compression of one model.

    `size` is the parameters of the whole compressed model as a fraction of the dense one's, what stays dense included
    on both sides: at size 0.25 the packed file is at most a quarter of the dense packed file, header aside. With size
    None the structure's options (`rank`, `energy`) say how much is kept, and the budget is not asked. `include` and
    `exclude` are globs over layer paths (`layers.*.conv`); `options` are the structure's,
    `budget_options` the budget's.
    `quantization` says how the values that then remain are represented, of the tensors that its own globs select;
    `embeddings` is another quantization, at its defaults, of the weights of nn.Embedding that they select, which in a
    model with many tokens are the largest.
    `coder` is what the packed file stores them with, and `vectors` (float32, float16 or int8) how it stores all others
    of one dimension, such as biases. Errors: UserError for an unknown name, option or value.
    """

    structure: str = "dense"
    size: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    budget: str = "global_greedy"
    budget_options: Mapping[str, Any] = field(default_factory=dict)
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    quantization: str = "float32"
    quantization_options: Mapping[str, Any] = field(default_factory=dict)
    quantization_include: tuple[str, ...] = ("*",)
    quantization_exclude: tuple[str, ...] = ()
    embeddings: str | None = None
    coder: str = "raw"
    coder_options: Mapping[str, Any] = field(default_factory=dict)
    vectors: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        for key in ("include", "exclude", "quantization_include", "quantization_exclude"):
            globs = getattr(self, key)
            object.__setattr__(self, key, (globs,) if isinstance(globs, str) else tuple(globs))
        structures.checked_size(self.size)
        _check("structure", structures, self.structure, self.options)
        _check("budget", budget, self.budget, self.budget_options)
        _check("quantization", quantization, self.quantization, self.quantization_options)
        if self.embeddings is not None:
            options.require(self.quantization != "float32", f"embeddings={self.embeddings} is beside the quantization "
                            "of all other weights, and there is none; give quantization, and exclude what stays")
            _check("quantization", quantization, self.embeddings, {})
        _check("coder", coders, self.coder, self.coder_options)
        if self.vectors not in ("float32", "float16", "int8"):
            raise UserError(f"vectors is {self.vectors!r}; it is float32, float16 or int8")

    def selects(self, path: str) -> bool:
        """Whether the layer at this path is to be compressed."""
        return any(fnmatchcase(path, glob) for glob in self.include) and not any(
            fnmatchcase(path, glob) for glob in self.exclude
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Plan":
        """The plan of a plain config as `conf/compress.yaml` composes it; one of `conf/train.yaml` has fewer groups."""
        groups = {name: dict(config.get(name) or {}) for name in ("structure", "budget", "quantization", "coder")}
        given: dict[str, Any] = {"quantization_include": groups["quantization"].pop("include", ("*",)),
                                 "quantization_exclude": groups["quantization"].pop("exclude", ()),
                                 "embeddings": config.get("embeddings"),
                                 "vectors": groups["coder"].pop("vectors", "float32")}
        for name, group in groups.items():
            if group:
                given[name] = group.pop("name")
                given["options" if name == "structure" else f"{name}_options"] = group
        return cls(size=config.get("size"), include=config["include"], exclude=config["exclude"], seed=config["seed"],
                   **given)


def _check(axis: str, package: Any, name: str, given: Mapping[str, Any]) -> None:
    """Errors: UserError for a name that the axis does not have, and for an unknown option or a wrong value."""
    known = package.methods()
    if name not in known:
        raise UserError(f"there is no {axis} '{name}'; there are {', '.join(sorted(known))}")
    options.make(known[name], given, f"{axis} {name}")
