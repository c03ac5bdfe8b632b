"""Processes of this machine."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from asrcompress.recipe.launchers import base


@dataclass(frozen=True)
class Options:
    """There are none: `--jobs` says how many run at a time, and the cores are shared between them."""


class Local:
    """Each command is a process of this machine."""

    def __init__(self, jobs: int) -> None:
        self.cores = max(1, len(os.sched_getaffinity(0)) // jobs)
        self.started: list[Popen[bytes]] = []

    def start(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Popen[bytes]:
        """Start a command; the handle is its process."""
        self.started.append(base.popen(command, os.getcwd(), environment, str(log)))
        return self.started[-1]

    def outcome(self, handle: Popen[bytes]) -> int | None:
        """The exit status; below 0 where a signal ended the process."""
        return handle.poll()

    def close(self) -> None:
        """Kill what still runs."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()


def launcher(options: Options, jobs: int, folder: Path) -> Local:
    """Processes of this machine, `jobs` at a time."""
    return Local(jobs)
