"""Processes of this machine."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from asrcompress.recipe import graph, launchers
from tests.conftest import REPO
from tests.recipe.launchers import small_sweep
from tests.recipe.test_recipe import needs_k2


def test_status_output_folder_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    launcher = launchers.build("local", (), 2, tmp_path)
    log = tmp_path / "log" / "a.log"
    for status in (0, 3):
        handle = launcher.start(["sh", "-c", f"pwd; echo $WORD >&2; exit {status}"], {"WORD": "a b"}, log)
        assert small_sweep.ended(launcher, handle) == status
    assert log.read_text() == f"{tmp_path}\na b\n" * 2
    launcher.close()


def test_a_killed_process_was_lost_and_close_kills_the_rest(tmp_path: Path) -> None:
    launcher = launchers.build("local", (), 1, tmp_path)
    first, second = (launcher.start(["sleep", "60"], {}, tmp_path / "log") for _ in range(2))
    assert launcher.outcome(first) is None
    os.kill(first.pid, signal.SIGKILL)
    assert small_sweep.ended(launcher, first) == -signal.SIGKILL
    launcher.close()
    assert second.poll() == -signal.SIGKILL


DRIVER = """
import sys, time
from pathlib import Path
from asrcompress.recipe import launchers
print(launchers.build("local", (), 1, Path(".")).start(["sleep", "60"], {}, Path("log")).pid, flush=True)
time.sleep(60)
"""


def test_a_job_does_not_outlive_a_killed_sweep(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], stdout=subprocess.PIPE, text=True, cwd=tmp_path,
                              env=environment)
    assert driver.stdout is not None
    job = int(driver.stdout.readline())
    os.kill(job, 0)
    driver.kill()
    driver.wait()
    for _ in range(500):
        if not running(job):
            return
        time.sleep(0.02)
    raise AssertionError("the job still runs")


def running(process: int) -> bool:
    """Whether a process is there and is not a zombie that nobody has waited for."""
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.slow
@needs_k2
def test_side_by_side_and_in_parts_is_as_one_after_the_other(tiny_corpus: Path, tmp_path: Path) -> None:
    alone, folder = tmp_path / "alone", tmp_path / "parts"
    given = small_sweep.settings(tiny_corpus)
    small_sweep.prepare(alone, given)
    shutil.copytree(alone, folder)
    for one, more in ((alone, given), (folder, replace(given, jobs=2, decode_parts=2))):
        sweep = small_sweep.start(one, graph.STAGES, more)
        said, _ = sweep.communicate()
        assert sweep.returncode == 0, said
        assert small_sweep.whole(one)
    assert small_sweep.rates(folder) == small_sweep.rates(alone)
