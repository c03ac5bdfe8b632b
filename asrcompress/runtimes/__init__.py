"""Runtimes: the programs that run a model on a device. Every module of this folder is one and keeps to `base.Runtime`;
`export` and `onnx_graph` are what they share.

    runtime = runtimes.find("sherpa-onnx")
    runtime.export(model, Path("device"), tokens=Path("lang/tokens.txt"))
    found = runtime.decode(runtime.load(Path("device")), waves)
"""

from typing import cast

from asrcompress import registry
from asrcompress.errors import UserError
from asrcompress.runtimes.base import Runtime

SHARED = ("export", "onnx_graph")


def names() -> tuple[str, ...]:
    """Every runtime there is, as its package is called on PyPI: `sherpa-onnx` is the module `sherpa_onnx`."""
    return tuple(name.replace("_", "-") for name in registry.names(__name__, SHARED))


def find(name: str) -> Runtime:
    """The runtime of this name. Errors: UserError for an unknown one, with those there are."""
    if name not in names():
        raise UserError(f"there is no runtime '{name}'; there are {', '.join(names())}")
    return cast(Runtime, registry.module(__name__, name.replace("-", "_"), "is no runtime", without=SHARED))
