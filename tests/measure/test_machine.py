import resource
import subprocess
import sys
from pathlib import Path

import pytest

from asrcompress.measure import machine


def test_cpu_has_a_name() -> None:
    assert machine.cpu()


def test_commit_outside_git(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise subprocess.CalledProcessError(128, "git")

    monkeypatch.setattr(subprocess, "run", fail)
    assert machine.commit() is None


def test_commit_marks_changed_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "asrcompress"
    (package / "measure").mkdir(parents=True)
    (package / "code.py").write_text("")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.com"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *arguments], check=True)
    monkeypatch.setattr(machine, "__file__", str(package / "measure" / "machine.py"))
    commit = machine.commit()
    assert commit and len(commit) == 10
    (tmp_path / "results.jsonl").write_text("")  # a result is not code
    assert machine.commit() == commit
    (package / "code.py").write_text("changed")
    assert machine.commit() == f"{commit}+"


def test_peak_rss_against_getrusage() -> None:
    """getrusage also counts what the parent held before exec, so it is the upper bound."""
    now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    assert 5e6 < machine.peak_rss() <= now * 1.1


@pytest.mark.parametrize(("kind", "flags", "saturates"), [
    ("x86_64", "avx2 fma", True), ("x86_64", "avx2 avx512f avx512_bf16", True), ("x86_64", "avx2 avx_vnni", False),
    ("AMD64", "avx512f avx512_vnni", False), ("x86_64", "amx_int8", False), ("aarch64", "asimd asimddp", False),
    ("arm64", "", False)])
def test_int8_sums_saturate_on_x86_without_vnni(kind: str, flags: str, saturates: bool,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.platform, "machine", lambda: kind)
    monkeypatch.setattr(machine, "cpu_flags", lambda: flags)
    assert machine.int8_saturates() == saturates
