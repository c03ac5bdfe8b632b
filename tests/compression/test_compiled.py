"""Compiled loops where nothing can be written, and that nobody who does not code pays for the compiler."""

import subprocess
import sys

import numba
import pytest

from asrcompress.compression._compiled import compiled


def test_without_a_place_for_the_cache_it_is_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.core.caching.CompileResultCacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(cache=True)(lambda x: x + 1)
    assert compiled(lambda x: x + 1)(2) == 3


def test_the_compiler_is_loaded_by_who_codes_only() -> None:
    code = "import sys, asrcompress.compression.quantization as q; q.fit; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
