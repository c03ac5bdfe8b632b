"""Processes that do not outlive the one that started them, in both environments."""

import ctypes
import multiprocessing
import os
import signal
import threading
from multiprocessing.process import BaseProcess


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent ends, however it ends: what was given up must not go on beside its
    second run. For `preexec_fn` of a process and `initializer` of a pool."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    parent = multiprocessing.parent_process()
    if parent and parent.pid != os.getppid():  # gone already, or behind a fork server, which lives as its children do
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
