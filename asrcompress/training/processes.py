"""The processes of a training that several devices share: how they are started, and that none outlives another."""

import atexit
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning import Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from asrcompress.errors import UserError

STARTER = "ASRCOMPRESS_STARTER"  # the process id of who started this process of the training
POLL, PATIENCE = 0.3, 10.0  # seconds between two looks at the others, and until a process that waits for them is ended
AGAIN = "run the same command again: the training goes on from its last checkpoint"
Processes = dict[int, subprocess.Popen]  # by rank on this machine


@contextmanager
def together(trainer: Trainer) -> Iterator[None]:
    """Start what lightning's ddp would start, and see to it that all processes of the training end together.

    Each further one runs this command again. Lightning leaves one alone for half an hour where the process that
    started it is killed before they are connected, and kills the starter, which then can say nothing. Errors:
    UserError where another process ended.
    """
    started = _start(trainer)
    done = threading.Event()
    starter = int(os.environ.get(STARTER, 0))
    if started or starter:
        threading.Thread(target=_watch, args=(started, starter, done), daemon=True).start()
    try:
        yield
    except BaseException as error:
        if not _of_connection(error):
            _kill(started)
            raise
        _end(started)  # who failed first has something to say
        raise UserError(_lost(started) or f"the other processes of the training are gone ({_short(error)}); "
                        f"{AGAIN}") from None
    finally:
        done.set()


def _start(trainer: Trainer) -> Processes:
    """The further processes of this machine, unless someone else starts them: torchrun, Slurm, or our starter.

    To lightning this process is then one of those that were started by hand.
    """
    launcher = trainer.strategy.launcher
    if not isinstance(launcher, _SubprocessScriptLauncher):
        return {}
    cluster = launcher.cluster_environment
    if cluster.creates_processes_externally:
        return {}
    shared = {"MASTER_ADDR": cluster.main_address, "MASTER_PORT": str(cluster.main_port),
              "NODE_RANK": str(cluster.node_rank()), "WORLD_SIZE": str(trainer.world_size)}
    os.environ.update(shared | {"LOCAL_RANK": "0"})
    started = {}
    for rank in range(1, launcher.num_processes):
        environment = os.environ | {"LOCAL_RANK": str(rank), STARTER: str(os.getpid())}
        # What it would print is what this process prints.
        started[rank] = subprocess.Popen([sys.executable, *sys.orig_argv[1:]], env=environment,
                                         stdout=subprocess.DEVNULL)
    launcher.procs = list(started.values())  # to whom lightning passes signals on
    atexit.register(_end, started)
    return started


def _watch(started: Processes, starter: int, done: threading.Event) -> None:
    """End this process where another ended and the main thread does not find out by itself."""
    while not done.wait(POLL):
        orphan = starter and os.getppid() != starter
        if (orphan or _lost(started)) and not done.wait(PATIENCE):
            print(f"asrcompress: {_lost(started) or f'the first process of the training was killed; {AGAIN}'}",
                  file=sys.stderr, flush=True)
            _kill(started)
            os._exit(1)


def _lost(started: Processes) -> str | None:
    """A sentence about those that failed."""
    for rank, process in started.items():
        if code := process.poll():
            how = f"was ended by signal {-code}" if code < 0 else "failed (see above)"
            return f"process {rank} of the training {how}; {AGAIN}"
    return None


def _end(started: Processes) -> None:
    """Wait until all have ended by themselves, but not for long, and not where one failed."""
    end = time.monotonic() + PATIENCE
    while any(process.poll() is None for process in started.values()) and not _lost(started):
        if time.monotonic() > end:
            break
        time.sleep(POLL / 10)
    _kill(started)


def _kill(started: Processes) -> None:
    for process in started.values():
        process.kill()
        process.wait()


def _of_connection(error: BaseException) -> bool:
    """Whether an error says that another process cannot be reached; gloo raises RuntimeError."""
    return isinstance(error, torch.distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _short(error: BaseException) -> str:
    """The first line of an error, without the place in the source that it names."""
    return str(error).splitlines()[0].rpartition("] ")[2][:120] if str(error) else type(error).__name__
