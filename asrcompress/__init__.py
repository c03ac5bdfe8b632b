"""Speech-recognition compression toolkit: small acoustic models, and an honest account of what each step cost.

    import asrcompress
    small, report = asrcompress.compress(model, "svd", size=0.25)
    asrcompress.save("model.packed", small); model = asrcompress.load("model.packed")

What is named here is imported when it is first used: `import asrcompress` loads nothing heavy.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asrcompress.compression import Plan as Plan
    from asrcompress.compression import compress as compress  # type: ignore[no-redef]
    from asrcompress.compression import load as load
    from asrcompress.compression import save as save
    from asrcompress.measure.api import measure as measure
    from asrcompress.runtimes.export import export as export

__version__ = "0.2.0"
__all__ = ["Plan", "__version__", "compress", "export", "load", "measure", "save"]

_HOMES = {"Plan": "compression", "compress": "compression", "load": "compression", "save": "compression",
          "export": "runtimes.export"}


def __getattr__(name: str) -> Any:
    if name == "measure":  # a package that can be called
        return importlib.import_module("asrcompress.measure")
    if name not in _HOMES:
        raise AttributeError(f"module 'asrcompress' has no attribute '{name}'")
    return getattr(importlib.import_module(f"asrcompress.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
