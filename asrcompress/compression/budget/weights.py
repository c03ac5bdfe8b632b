"""Weights of layers: how much a squared error costs in one layer, compared with others. Globs over layer paths say it.

    blocks.*.attention.query: 0.5
    blocks.*.convolution.pointwise_out: 12

The file is YAML or JSON. Of several globs that a path matches the last one counts; a layer without one has weight 1.
`compression.sensitivity` measures weights.
"""

import json
import math
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import yaml

from asrcompress.files import atomic, require_file
from asrcompress.options import require


def checked(weights: Mapping[str, float], where: str) -> dict[str, float]:
    """The weights, finite and above 0. Errors: UserError that begins with `where`."""
    for glob, weight in weights.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        require(number and 0 < weight < math.inf,
                f"{where}: the weight of {glob} is {weight!r}; it is a number above 0")
    return {str(glob): float(weight) for glob, weight in weights.items()}


def of_layers(weights: Mapping[str, float], paths: Iterable[str]) -> dict[str, float]:
    """{path: weight} of every path. Errors: UserError where there are weights and none is of any of the paths."""
    paths = list(paths)
    found = {path: [weight for glob, weight in weights.items() if fnmatchcase(path, glob)] for path in paths}
    require(not weights or any(found.values()), f"budget: the weights are for {', '.join(weights)}, and no layer is "
            f"called so; the layers are {', '.join(paths)}")
    return {path: matching[-1] if matching else 1.0 for path, matching in found.items()}


def read(path: Path | str) -> dict[str, float]:
    """The weights of a file. Errors: UserError where there is none, or it is no mapping of globs to numbers above 0."""
    try:
        found = yaml.safe_load(require_file(path, "the file of weights").read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        found = None
    require(isinstance(found, Mapping) and bool(found), f"{path} is no YAML or JSON mapping of globs to numbers; write "
            "it with `asrcompress sensitivity`")
    return checked(found, str(path))


def write(path: Path | str, weights: Mapping[str, float]) -> None:
    """Write a file that `read` reads, JSON where its name says so; it gets its name when it is whole."""
    content = checked(weights, str(path))
    in_json = Path(path).suffix == ".json"
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n" if in_json else
                             yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
