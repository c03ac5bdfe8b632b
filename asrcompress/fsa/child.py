"""Work that may end its process, such as a failed check in k2's C++, in a process of its own."""

import os
import signal
import tempfile
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from asrcompress.errors import UserError
from asrcompress.processes import die_with_parent


def call(what: Path | str, function: Callable[..., Any], *args: Any) -> None:
    """Run `function(*args)` in a new process, which does not outlive this one; its standard output is this one's.

    `what` is the file that the work is about. Errors: UserError that the function raises; UserError with the file, the
    signal and the last line of the error stream where the process ends by a signal; RuntimeError with the whole error
    stream for any other exception.
    """
    context = get_context("spawn")  # k2's threads do not survive a fork
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.NamedTemporaryFile() as errors:
        process = context.Process(target=_work, args=(sender, errors.name, function, args))
        process.start()
        sender.close()
        process.join()
        said = Path(errors.name).read_text(encoding="utf-8", errors="replace").strip()
    with suppress(EOFError):
        raise UserError(receiver.recv())
    if process.exitcode and process.exitcode < 0:
        raise UserError(_ended(what, -process.exitcode, said))
    if process.exitcode:
        raise RuntimeError(said)


def _work(sender: Connection, errors: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    die_with_parent()
    os.dup2(os.open(errors, os.O_WRONLY), 2)
    try:
        function(*args)
    except UserError as error:
        sender.send(str(error))


def _ended(what: Path | str, number: int, said: str) -> str:
    name = signal.Signals(number).name
    if name == "SIGKILL":
        return f"{what}: the process was killed, as happens without enough memory; give it more, or a smaller model"
    last = next((line for line in said.splitlines() if "Check failed" in line or "[F]" in line), said[-200:])
    return f"{what}: the program ended with {name} ({' '.join(last.split()) or 'no message'}); check the file"
