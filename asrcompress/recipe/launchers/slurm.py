"""Slurm, through submitit: each command is a job of its own."""

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from asrcompress.errors import UserError
from asrcompress.options import require
from asrcompress.recipe.launchers import base

EVERY, GONE = 3.0, 15.0  # seconds between two looks at the queue, and after which a job that is not in it was lost


@dataclass(frozen=True)
class Options:
    """sbatch's options of each job, by submitit's names: `time` in minutes, `mem` as 8GB.

    A job that runs out of its time is started once more, and its training goes on from the last checkpoint.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    time: int = 24 * 60
    cpus_per_task: int = 1
    gpus_per_node: int | None = None
    mem: str | None = None
    use_srun: int = 1  # 0: the command runs in the batch step itself

    def __post_init__(self) -> None:
        require(self.cpus_per_task >= 1, "launcher slurm: cpus_per_task is 1 or more")
        require(self.time >= 1, "launcher slurm: time is 1 minute or more")


class Slurm:
    """Jobs of Slurm. A job has ended when submitit's file with its result is there.

    Whether one was lost is asked of squeue, which knows it everywhere; sacct, which submitit asks, needs a database
    that small clusters do not have.
    """

    def __init__(self, options: Options, folder: Path) -> None:
        try:
            import submitit
        except ImportError:
            raise UserError("--launcher slurm needs submitit: pip install 'asrcompress[cluster]'") from None
        if shutil.which("sbatch") is None:
            raise UserError("--launcher slurm: there is no sbatch on this machine; start the recipe where Slurm's "
                            "commands are")
        self.cores, self.jobs, self.missing = options.cpus_per_task, list[Any](), dict[str, float]()
        self.queue, self.looked = set[str](), 0.0
        self.executor = submitit.SlurmExecutor(folder=folder)
        given = {key: value for key, value in asdict(options).items() if value is not None}
        self.executor.update_parameters(**given | {"use_srun": bool(options.use_srun)}, job_name="asrcompress")

    def start(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Any:
        """Submit a job. Errors: UserError with what sbatch said."""
        import submitit

        named = {**environment, "SLURM_JOB_NAME": "bash"}  # lightning takes any other job for one of its own clusters
        try:
            job = self.executor.submit(base.run, list(command), os.getcwd(), named, str(log.resolve()))
        except (submitit.core.utils.FailedJobError, subprocess.CalledProcessError) as error:
            said = str(getattr(error, "stderr", None) or error).strip().splitlines()[-1]
            raise UserError(f"sbatch refused a job: {said}; correct --launcher-options") from None
        self.jobs.append(job)
        return job

    def outcome(self, handle: Any) -> int | None:
        """The exit status; LOST where the job left the queue without a result: its node died, or its time was over."""
        if handle.paths.result_pickle.exists():
            self.jobs.remove(handle)
            error = handle.exception()
            return handle.result() if error is None else base.LOST
        if handle.job_id in self._queued():
            self.missing.pop(handle.job_id, None)
        elif time.monotonic() - self.missing.setdefault(handle.job_id, time.monotonic()) > GONE:
            self.jobs.remove(handle)
            return base.LOST
        return None

    def _queued(self) -> set[str]:
        """The ids of this user's jobs in the queue, as squeue said last; where it does not answer, those of before."""
        if time.monotonic() - self.looked > EVERY:
            self.looked = time.monotonic()
            said = subprocess.run(["squeue", "--me", "--noheader", "--format=%i"], capture_output=True, text=True)
            if said.returncode == 0:
                self.queue = set(said.stdout.split())
        return self.queue

    def close(self) -> None:
        """Cancel what waits or runs."""
        for job in self.jobs:
            job.cancel()


def launcher(options: Options, jobs: int, folder: Path) -> Slurm:
    """Jobs of Slurm; submitit writes its files into `folder`."""
    return Slurm(options, folder)
