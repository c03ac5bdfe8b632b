"""A real Slurm of one node on this machine: Debian's packages slurm-wlm and munge, started here for these tests.

    apt install slurm-wlm munge
It takes root to start its daemons; without both the tests are skipped.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from asrcompress.errors import UserError
from asrcompress.recipe import graph, launchers
from asrcompress.recipe.launchers.base import LOST
from tests.recipe.launchers import small_sweep
from tests.recipe.test_recipe import needs_k2

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scancel", "sinfo")
pytestmark = [pytest.mark.slow, needs_k2,
              pytest.mark.skipif(not all(map(shutil.which, PROGRAMS)) or os.geteuid() != 0,
                                 reason="needs slurm-wlm and munge, and root to start them")]

CONFIG = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
SchedulerParameters=batch_sched_delay=1,sched_interval=2
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=tests Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="module")
def slurm() -> Iterator[str]:
    """A cluster of this machine alone; the name of its partition."""
    folder = Path("/tmp") / f"slurm-of-tests-{os.getpid()}"  # a socket's path is short
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    sockets = [socket.socket() for _ in range(2)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    config, key = folder / "slurm.conf", folder / "munge.key"
    config.write_text(CONFIG.format(host=socket.gethostname().split(".")[0], ports=ports, folder=folder))
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = small_sweep.ENVIRONMENT["SLURM_CONF"] = str(config)
    munged = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket",
              *(f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed"))]
    daemons = [munged, ["slurmctld", "-D"], ["slurmd", "-D"]]
    running = [subprocess.Popen(one, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for one in daemons]
    try:
        for _ in range(120):
            if "idle" in subprocess.run(["sinfo", "-h", "-o", "%t"], capture_output=True, text=True).stdout:
                break
            time.sleep(0.5)
        else:
            pytest.fail(f"Slurm does not start: {(folder / 'slurmctld.log').read_text()[-2000:]}")
        yield "tests"
    finally:
        subprocess.run(["scancel", "--me"], capture_output=True)
        for daemon in reversed(running):
            daemon.terminate()
            daemon.wait(20)
        os.environ.pop("SLURM_CONF")
        small_sweep.ENVIRONMENT.pop("SLURM_CONF")
        if before is not None:
            os.environ["SLURM_CONF"] = before
        shutil.rmtree(folder)


def test_status_and_output(slurm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    launcher = launchers.build("slurm", (f"partition={slurm}",), 2, tmp_path / "submitit")
    handles = [launcher.start(["sh", "-c", f"pwd; echo $WORD; exit {status}"], {"WORD": "a b"}, Path(f"log-{status}"))
               for status in (0, 3)]
    assert [small_sweep.ended(launcher, handle) for handle in handles] == [0, 3]
    assert Path("log-0").read_text() == Path("log-3").read_text() == f"{tmp_path}\na b\n"


def test_a_job_that_left_the_queue_was_lost_and_close_cancels_the_rest(slurm: str, tmp_path: Path) -> None:
    launcher = launchers.build("slurm", (f"partition={slurm}", "use_srun=0"), 2, tmp_path / "submitit")
    first, second = (launcher.start(["sleep", "300"], {}, tmp_path / "log") for _ in range(2))
    subprocess.run(["scancel", "--signal=KILL", "--full", first.job_id], check=True)
    assert small_sweep.ended(launcher, first) == LOST
    launcher.close()
    for _ in range(100):
        if second.job_id not in subprocess.check_output(["squeue", "--me", "-h", "-o", "%i"], text=True).split():
            return
        time.sleep(0.2)
    raise AssertionError("the job is still in the queue")


def test_the_sweep_on_slurm(slurm: str, tiny_corpus: Path, tmp_path: Path) -> None:
    folder, given = tmp_path / "slurm", small_sweep.settings(tiny_corpus)
    small_sweep.prepare(folder, given)
    there = replace(given, launcher="slurm", launcher_options=(f"partition={slurm}", "time=30"), jobs=2)
    sweep = small_sweep.start(folder, graph.STAGES, there)
    said, _ = sweep.communicate()
    assert sweep.returncode == 0, said
    assert small_sweep.whole(folder)


def test_what_sbatch_refuses_is_a_sentence(slurm: str, tmp_path: Path) -> None:
    launcher = launchers.build("slurm", ("partition=moon",), 1, tmp_path / "submitit")
    with pytest.raises(UserError, match="sbatch refused a job: .*partition"):
        launcher.start(["true"], {}, tmp_path / "log")
