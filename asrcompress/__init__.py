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
    from asrcompress.compression import compress as compress
    from asrcompress.compression import load as load
    from asrcompress.compression import save as save

__version__ = "0.2.0"
__all__ = ["Plan", "__version__", "compress", "load", "save"]

_HOMES = {"Plan": "compression", "compress": "compression", "load": "compression", "save": "compression"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'asrcompress' has no attribute '{name}'")
    return getattr(importlib.import_module(f"asrcompress.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
