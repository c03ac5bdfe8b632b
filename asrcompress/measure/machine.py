"""What a figure was measured on: the CPU, and the commit of the code."""

import platform
import subprocess
from pathlib import Path


def cpu() -> str:
    """The processor's model name, as /proc/cpuinfo gives it; elsewhere what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8",
         "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2")  # on which the speed of products depends


def cpu_flags() -> str:
    """Those of FLAGS that /proc/cpuinfo has; nothing elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    found = [set(line.partition(":")[2].split()) for line in lines if line.startswith(("flags", "Features"))]
    return " ".join(flag for flag in FLAGS if found and flag in found[0])


def int8_saturates() -> bool:
    """Whether this processor adds products of bytes in 16 bits: x86 without VNNI or AMX."""
    exact = {"avx512_vnni", "avx_vnni", "amx_int8"} & set(cpu_flags().split())
    return platform.machine() in ("x86_64", "AMD64") and not exact


def commit() -> str | None:
    """The short commit of the code that runs, with a `+` where the package differs from it; None outside git."""
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=Path(__file__).parents[1], capture_output=True, text=True,
                              check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=10", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def peak_rss() -> int:
    """The most bytes of memory this process has held.

    VmHWM, not getrusage: on Linux ru_maxrss of a new process starts at what its parent held before exec.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource
        import sys

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else used * 1024
