"""Run the tasks of a sweep on a launcher: what is ready starts, what was lost starts once more, a table follows."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from asrcompress.errors import UserError
from asrcompress.recipe import decoding, estimate, launchers, rows
from asrcompress.recipe.graph import Task
from asrcompress.recipe.launchers.base import Launcher
from asrcompress.recipe.settings import Settings, to_words
from asrcompress.recipe.sweep import EXP

LOG = Path("log")
POLL = 0.5  # seconds between two looks at the jobs
DONE, FAILED, SKIPPED, RUNNING, WAITING = "done", "failed", "skipped", "running", "waiting"


@dataclass
class Entry:
    """A task and where it stands. Times are in seconds; `expected` is a guess, of what is still to do."""

    task: Task
    expected: float = 0.0
    state: str = WAITING
    handle: Any = None
    attempts: int = 0
    started: float = 0.0
    taken: float = 0.0
    said: str = ""

    @property
    def log(self) -> Path:
        """What the task printed."""
        part = "" if self.task.part is None else f".{self.task.part}"
        return LOG / f"{self.task.name}.{self.task.stage}{part}.log"


@dataclass
class Sweep:
    """The tasks by their keys, in an order in which they could run one after the other."""

    entries: dict[str, Entry]
    settings: Settings
    console: Console = field(default_factory=Console)

    def of(self, *states: str) -> list[Entry]:
        """The entries in any of some states."""
        return [entry for entry in self.entries.values() if entry.state in states]

    def seconds_left(self) -> float:
        """What is left, shared between the jobs that run at a time; guesses are scaled by those that came true."""
        measured = [entry for entry in self.of(DONE) if entry.taken]
        guessed = sum(entry.expected for entry in measured)
        scale = sum(entry.taken for entry in measured) / guessed if guessed else 1.0
        left = [scale * entry.expected - (time.monotonic() - entry.started if entry.state == RUNNING else 0)
                for entry in self.of(RUNNING, WAITING)]
        return sum(max(0.0, one) for one in left) / self.settings.jobs


def of(tasks: Sequence[Task], settings: Settings) -> Sweep:
    """A sweep of tasks, of which those are done that their files say to be done, and whose needs are.

    Errors: UserError for a model that was made otherwise.
    """
    sweep = Sweep({}, settings)
    for task in tasks:
        done = all(sweep.entries[need].state == DONE for need in task.needs) and task.done(settings)
        sweep.entries[task.key] = Entry(task, state=DONE if done else WAITING)
    for key, seconds in estimate.seconds([entry.task for entry in sweep.of(WAITING)], settings).items():
        sweep.entries[key].expected = seconds
    return sweep


def dry_run(tasks: Sequence[Task], settings: Settings) -> None:
    """Print the tasks with the hours that each may take. Errors: UserError, as `run` would stop at once."""
    sweep = of(tasks, settings)
    table = Table("job", "after", "state", "hours", title=f"{len(tasks)} jobs")
    for entry in sweep.entries.values():
        hours = "" if entry.state == DONE else f"{entry.expected / 3600:.2f}"
        table.add_row(entry.task.key, ", ".join(entry.task.needs), entry.state.replace(WAITING, "to do"), hours)
    sweep.console.print(table)
    left = sum(entry.expected for entry in sweep.of(WAITING)) / 3600
    print(f"{len(sweep.of(DONE))} of {len(tasks)} done; the others may take {left:.1f} hours one after the other, "
          f"{max(left / settings.jobs, _longest(sweep)):.1f} hours with --jobs {settings.jobs}. Nothing was started.")


def _longest(sweep: Sweep) -> float:
    """Hours of the longest chain of tasks that wait for each other."""
    ends: dict[str, float] = {}
    for key, entry in sweep.entries.items():
        ends[key] = entry.expected + max((ends[need] for need in entry.task.needs), default=0.0)
    return max(ends.values(), default=0.0) / 3600


def run(tasks: Sequence[Task], settings: Settings) -> None:
    """Run every task that is not done, and put the rows of the decodings into results.jsonl as they come.

    Errors: UserError that names the tasks that failed, after all others have run.
    """
    sweep = of(tasks, settings)
    if waiting := sweep.of(WAITING):
        print(f"{len(waiting)} of {len(tasks)} jobs to do with --launcher {settings.launcher} --jobs {settings.jobs}, "
              f"about {sweep.seconds_left() / 3600:.1f} hours; what they print is in {LOG}/", flush=True)
        launcher = launchers.build(settings.launcher, settings.launcher_options, settings.jobs, LOG / "launcher")
        try:
            with _shown(sweep) as show:
                while sweep.of(WAITING, RUNNING):
                    _step(sweep, launcher)
                    show()
                    time.sleep(POLL)
        except KeyboardInterrupt:
            raise UserError(f"stopped: {len(sweep.of(RUNNING))} jobs were cut off; the same command goes on") from None
        finally:
            launcher.close()
    for entry in sweep.of(DONE):  # those of jobs that ended after an earlier sweep was stopped, too
        _collect(entry)
    if failed := sweep.of(FAILED):
        others = f", and {len(skipped)} that wait for them did not start" if (skipped := sweep.of(SKIPPED)) else ""
        said = "".join(f"\n  {entry.task.key}: {entry.said} ({entry.log})" for entry in failed)
        raise UserError(f"{len(failed)} of {len(tasks)} jobs failed{others}; the same command tries them again{said}")


def _step(sweep: Sweep, launcher: Launcher) -> None:
    """Note what has ended, and start what is ready."""
    for entry in sweep.of(RUNNING):
        status = launcher.outcome(entry.handle)
        if status is not None:
            _end(sweep, entry, status)
    for entry in sweep.of(WAITING):
        needs = {sweep.entries[need].state for need in entry.task.needs}
        if needs & {FAILED, SKIPPED}:
            entry.state = SKIPPED
        elif needs <= {DONE} and len(sweep.of(RUNNING)) < sweep.settings.jobs:
            _start(sweep, entry, launcher)


def _start(sweep: Sweep, entry: Entry, launcher: Launcher) -> None:
    """Give a task to the launcher, as the command that one could type."""
    words = to_words(replace(sweep.settings, launcher="local", launcher_options=(), jobs=1))
    command = [sys.executable, "-m", "asrcompress.cli", "recipe", entry.task.stage, *entry.task.words, *words]
    environment = {name: os.environ[name] for name in ("PYTHONPATH", "K2_PYTHON") if name in os.environ}
    environment["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(launcher.cores))
    entry.log.parent.mkdir(parents=True, exist_ok=True)
    entry.attempts, entry.state, entry.started = entry.attempts + 1, RUNNING, time.monotonic()
    entry.handle = launcher.start(command, environment, entry.log)


def _end(sweep: Sweep, entry: Entry, status: int) -> None:
    """What follows from the end of a task: its rows, a second attempt, or a failure."""
    if status == 0:
        entry.state, entry.taken = DONE, time.monotonic() - entry.started
        _collect(entry)
        sweep.console.print(f"{entry.task.key}: done in {_clock(entry.taken)}")
    elif status < 0 and entry.attempts == 1:
        entry.state = WAITING
        sweep.console.print(f"{entry.task.key}: its process or its machine was lost; it is started once more")
    else:
        entry.state = FAILED
        entry.said = _last_line(entry.log) if status > 0 else "its process or its machine was lost twice"
        sweep.console.print(f"{entry.task.key}: failed: {entry.said}")


def _collect(entry: Entry) -> None:
    """Merge the rows of a decoding into results.jsonl."""
    if entry.task.stage == "decode" and entry.task.part is None:
        rows.collect(EXP / entry.task.name, decoding.RESULTS)


def _last_line(log: Path) -> str:
    """The last line that a task printed: of one that failed, its sentence."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")


def _clock(seconds: float) -> str:
    """Seconds as 1:02:03."""
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"


@contextmanager
def _shown(sweep: Sweep) -> Iterator[Any]:
    """A table that follows the sweep on a terminal; elsewhere the lines of `_end` are all."""
    if not sweep.console.is_terminal:
        yield lambda: None
        return
    with Live(_table(sweep), console=sweep.console, refresh_per_second=2) as live:
        yield lambda: live.update(_table(sweep))


def _table(sweep: Sweep) -> Table:
    """What runs and what failed, and how many are in each state."""
    counts = ", ".join(f"{len(sweep.of(state))} {state}" for state in (DONE, RUNNING, WAITING, FAILED, SKIPPED))
    table = Table("job", "state", "time", title=f"{counts}; about {_clock(sweep.seconds_left())} left")
    for entry in sweep.of(RUNNING, FAILED):
        since = _clock(time.monotonic() - entry.started) if entry.state == RUNNING else ""
        table.add_row(entry.task.key, entry.state, since or entry.said)
    return table
