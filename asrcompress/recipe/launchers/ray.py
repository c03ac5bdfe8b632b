"""A Ray cluster: one that is there, by its address, or one of this machine alone."""

import logging
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asrcompress.errors import UserError
from asrcompress.options import require
from asrcompress.recipe.launchers import base


@dataclass(frozen=True)
class Options:
    """What a job asks of Ray.

    `address` is that of a running cluster (HOST:6379), `auto` for the one that this machine belongs to, or empty: Ray
    is started here, for this sweep. `cpus` and `gpus` are what each job takes.
    """

    address: str = ""
    cpus: int = 1
    gpus: int = 0

    def __post_init__(self) -> None:
        require(self.cpus >= 1, "launcher ray: cpus is 1 or more")
        require(self.gpus >= 0, "launcher ray: gpus is 0 or more")


class Ray:
    """Each command is a task of its own; Ray chooses the machine."""

    def __init__(self, options: Options) -> None:
        try:
            import ray
        except ImportError:
            raise UserError("--launcher ray needs Ray: pip install 'asrcompress[cluster]'") from None
        self.ray, self.cores, self.waiting = ray, options.cpus, list[Any]()
        where = {"address": options.address} if options.address else {"address": "local", "include_dashboard": False}
        try:
            _reach(options.address)
            ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError) as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(f"there is no Ray cluster at '{options.address}' ({first}); start one with "
                            "'ray start --head', or leave address away") from None
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= options.cpus and node.get("GPU", 0) >= options.gpus for node in nodes):
            ray.shutdown()
            raise UserError(f"no machine of the Ray cluster has {options.cpus} CPUs and {options.gpus} GPUs, so no job "
                            "would ever start; lower cpus or gpus of --launcher-options")
        self.remote = ray.remote(num_cpus=options.cpus, num_gpus=options.gpus, max_retries=0)(base.run)

    def start(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Any:
        """Give a command to the cluster; the handle is the reference to its exit status."""
        self.waiting.append(self.remote.remote(list(command), os.getcwd(), dict(environment), str(log.resolve())))
        return self.waiting[-1]

    def outcome(self, handle: Any) -> int | None:
        """The exit status; LOST where the machine or Ray's process on it died.

        Errors: UserError where a machine cannot start the command at all.
        """
        ready, _ = self.ray.wait([handle], timeout=0)
        if not ready:
            return None
        self.waiting.remove(handle)
        try:
            return self.ray.get(handle)
        except self.ray.exceptions.RayTaskError as error:  # the command could not even be started there
            raise UserError(f"a machine of the Ray cluster cannot run jobs: {error.cause}; every machine has to see "
                            f"{os.getcwd()} and the Python environment under the same paths") from None
        except self.ray.exceptions.RayError:
            return base.LOST

    def close(self) -> None:
        """Cancel what still runs, and leave the cluster; one that was started here ends."""
        for handle in self.waiting:
            self.ray.cancel(handle, force=True)
        self.ray.shutdown()


def _reach(address: str) -> None:
    """Raise OSError where nothing listens at HOST:PORT: Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and "://" not in address and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def launcher(options: Options, jobs: int, folder: Path) -> Ray:
    """Tasks of a Ray cluster."""
    return Ray(options)
