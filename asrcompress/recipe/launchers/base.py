"""What every launcher does, and the process that runs a command on whatever machine it was given."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from asrcompress.processes import die_with_parent

LOST = -1  # the machine or the process went away, so that nobody knows how far the command came


class Launcher(Protocol):
    """Starts commands and says how they ended. `cores` is the number of CPU cores that each of them has."""

    cores: int

    def start(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Any:
        """Start a command in the current folder with more in its environment; its output is appended to `log`."""

    def outcome(self, handle: Any) -> int | None:
        """The exit status of what `start` returned; None while it waits or runs, below 0 where it was lost."""

    def close(self) -> None:
        """Stop what still runs, and leave the engine."""


def run(command: Sequence[str], folder: str, environment: Mapping[str, str], log: str) -> int:
    """Run a command to its end on this machine; its exit status, below 0 where a signal ended it."""
    return popen(command, folder, environment, log).wait()


def popen(command: Sequence[str], folder: str, environment: Mapping[str, str], log: str) -> subprocess.Popen[bytes]:
    """Start a command in a folder, with its output appended to a file. It does not outlive this process."""
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as stream:
        return subprocess.Popen(list(command), cwd=folder, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
                                stdout=stream, stderr=subprocess.STDOUT, preexec_fn=die_with_parent)
