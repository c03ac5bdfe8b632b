"""What a model costs, in bytes, multiply-adds, seconds and memory. `measure(model)` calls the package."""

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """`asrcompress.measure` is this package, and the function of the public API."""

    def __call__(self, *args: Any, **options: Any) -> dict[str, Any]:
        from asrcompress.measure.api import measure

        return measure(*args, **options)


sys.modules[__name__].__class__ = _Callable
