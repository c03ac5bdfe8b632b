"""The decision against the flags that the kernel reports, and against simulated machines."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from asrcompress import precision
from tests.conftest import REPO

FLAGS = set(Path("/proc/cpuinfo").read_text().split()) if Path("/proc/cpuinfo").exists() else set()


def said(**limits: str) -> list[str]:
    """has_bfloat16() and resolve("auto") of a new process under these limits of oneDNN, and no others."""
    code = "from asrcompress import precision; print(precision.has_bfloat16(), precision.resolve('auto'))"
    free = {key: value for key, value in os.environ.items() if key not in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, env=free | limits)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(not FLAGS, reason="only Linux has /proc/cpuinfo")
def test_it_says_what_the_kernel_says() -> None:
    flags = {"avx512_bf16", "amx_bf16"} if platform.machine().lower() in precision.X86 else {"bf16"}
    assert said() == (["True", "bf16-mixed"] if FLAGS & flags else ["False", "32-true"])


@pytest.mark.parametrize(("onednn", "avx512", "amx", "limit", "expected"), [
    (True, True, False, "", True),
    (True, False, True, "", True),
    (True, False, False, "", False),  # oneDNN says yes to AVX-512 without BF16, and emulates
    (False, True, False, "", False),
    (True, True, False, "AVX2", False),
    (True, True, True, "avx512_core_vnni", False),
    (True, True, True, "AVX512_CORE_BF16", True),
    (True, True, True, "ALL", True),
])
def test_simulated_processors(monkeypatch: pytest.MonkeyPatch, onednn: bool, avx512: bool, amx: bool, limit: str,
                              expected: bool) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert precision.has_bfloat16() is expected
    assert precision.resolve("auto") == ("bf16-mixed" if expected else "32-true")
    with precision.autocast():
        assert torch.is_autocast_enabled("cpu") is expected
    assert precision.resolve("32-true") == "32-true" and precision.resolve("bf16-mixed") == "bf16-mixed"


def test_a_gpu_that_emulates_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for native in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native)
        assert precision.resolve("auto", "cuda") == ("bf16-mixed" if native else "32-true")
    assert precision.resolve("auto", "mps") == "32-true"


def test_no_other_place_decides() -> None:
    """bfloat16 is named in the package only where it is decided, and as a dtype that weights may have."""
    found = {str(path.relative_to(REPO)) for path in (REPO / "asrcompress").rglob("*.py")
             if "autocast(" in (text := path.read_text()) and "torch.bfloat16" in text}
    assert found == {"asrcompress/precision.py"}


def test_a_limited_process_says_float32() -> None:
    assert said(ONEDNN_MAX_CPU_ISA="AVX2") == ["False", "32-true"]
