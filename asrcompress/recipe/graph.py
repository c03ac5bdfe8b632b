"""The sweep as a graph of tasks: each is one process, and waits for those that make what it reads."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from asrcompress import files
from asrcompress.errors import UserError
from asrcompress.options import require
from asrcompress.recipe import decoding, models, parts, sweep
from asrcompress.recipe.settings import Settings
from asrcompress.recipe.sweep import EXP, Job

MAKE: dict[str, Callable[[Settings], list[Job]]] = {
    "train-dense": lambda settings: [sweep.dense(settings)], "train-controls": sweep.controls,
    "compress": sweep.compressed}
STAGES = (*MAKE, "decode")  # of which a graph is made


@dataclass(frozen=True)
class Task:
    """`asrcompress recipe STAGE --only NAME`: a model is made, or decoded. `needs` are keys of tasks.

    With --decode-parts N a model has N tasks with a `part` of the test sets, and one, part 0, that chooses the scales
    before them.
    """

    stage: str
    name: str
    needs: tuple[str, ...] = ()
    job: Job | None = None  # of a model that is made
    part: int | None = None

    @property
    def key(self) -> str:
        """What names the task among all."""
        return f"{self.stage} {self.name}" + ("" if self.part is None else f" part {self.part}")

    @property
    def words(self) -> list[str]:
        """Which part of the stage it is, as options of the command."""
        return ["--only", self.name, *([] if self.part is None else ["--part", str(self.part)])]

    def done(self, settings: Settings) -> bool:
        """Whether there is nothing left to do, seen from the files; of a part, whether the whole is done.

        Errors: UserError for what was made otherwise.
        """
        stages = [models.stage(self.job)] if self.job else decoding.stages(settings, self.name)
        return all(stage.done(settings.redo) for stage in stages)


def tasks(settings: Settings, stages: Sequence[str]) -> list[Task]:
    """The tasks of some stages, in an order in which they could run one after the other.

    Every job is checked, so that a mistake does not wait for hours. Errors: UserError, also for a model that starts
    from one that is neither there nor made.
    """
    jobs: dict[str, tuple[str, Job]] = {}
    for stage, job in ((one, job) for one in MAKE if one in stages for job in MAKE[one](settings)):
        require(job.name not in jobs, f"two models of the sweep would be called {job.name}; rename one")
        jobs[job.name] = stage, job
    found = []
    for stage, job in jobs.values():
        models.check(job)
        found.append(Task(stage, job.name, tuple(f"{jobs[name][0]} {name}" for name in job.needs if name in jobs), job))
        for name in job.needs:
            require(name in jobs or (EXP / name / ".done").exists(),
                    f"{job.name} needs the model {name}, which is neither done nor made by these stages")
    found = _sorted(found)
    if "decode" in stages:
        for name in to_decode(settings, jobs):
            made = [f"{jobs[one][0]} {one}" for one in dict.fromkeys([name, "dense"]) if one in jobs]
            found += _decodings(name, tuple(made), settings.decode_parts)
    return found


def to_decode(settings: Settings, made: Iterable[str] = ()) -> list[str]:
    """The models of --decode, or all that are done or will be `made`; the dense one first.

    Errors: UserError for one that is neither.
    """
    names = dict.fromkeys(["dense", *(settings.decode or [*sweep.finished(), *made])])
    for name in names.keys() - set(made):
        files.require_file(EXP / name / ".done", "a model to decode is not done:")
    return list(names)


def _decodings(name: str, made: tuple[str, ...], number: int) -> list[Task]:
    """The tasks that decode a model in so many parts; `made` are those that make it and the dense one.

    The dense model chooses the scales of language models, and what it recognises is what the others are compared with.
    """
    dense = () if name == "dense" else ("decode dense",)
    if number == 1:
        return [Task("decode", name, (*made, *dense))]
    scales = Task("decode", name, (*made, *(f"{key} part 0" for key in dense)), part=0)
    split = [Task("decode", name, (scales.key,), part=part) for part in parts.numbers(number)]
    return [scales, *split, Task("decode", name, (*(task.key for task in split), *dense))]


def _sorted(found: list[Task]) -> list[Task]:
    """Each task after those that it needs. Errors: UserError where two wait for each other."""
    left, done = list(found), dict[str, Task]()
    while left:
        ready = [task for task in left if all(need in done for need in task.needs)]
        if not ready:
            raise UserError(f"{left[0].name} and {left[-1].name} wait for each other: look at from= and teacher=")
        done |= {task.key: task for task in ready}
        left = [task for task in left if task not in ready]
    return list(done.values())


def only(settings: Settings, stage: str, name: str, part: int | None = None) -> Callable[[], object]:
    """What one task does, for the process that does it. Errors: UserError for a name that the stage does not make."""
    if stage == "decode" and part is None:
        return lambda: decoding.decode(settings, name)
    if stage == "decode":
        return lambda: decoding.decode_part(settings, name, part) if part else decoding.prepare(settings, name)
    if stage not in MAKE:
        raise UserError(f"--only is for {', '.join(STAGES)}, not for {stage}")
    jobs = {job.name: job for job in MAKE[stage](settings)}
    if name not in jobs:
        raise UserError(f"{stage} makes no model {name}; it makes {', '.join(jobs) or 'none'}")
    return lambda: sweep.run(jobs[name])
