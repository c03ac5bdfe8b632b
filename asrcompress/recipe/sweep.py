"""The sweep: every model that the settings ask for, as a list of independent jobs.

A job is plain data (it can be pickled, and compared), and `run(job)` does all of it: it trains one model into exp/NAME,
packs it and describes it. `job.needs` names the models that it starts from, nearly always the dense one or none, so
that a launcher may run the others in any order, on any machine that sees the folder.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from asrcompress.errors import UserError
from asrcompress.options import require
from asrcompress.recipe.settings import Settings

EXP = Path("exp")
DENSE = EXP / "dense"


@dataclass(frozen=True)
class Method:
    """A structure and its options, as `svd,data_aware=true` names them; `budget=NAME` is one as well."""

    structure: str
    options: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Method":
        """Errors: UserError for an option without a value."""
        structure, *options = text.split(",")
        for one in options:
            require("=" in one, f"--methods {text}: write '{one or 'OPTION'}=VALUE', as in svd,data_aware=true")
        return cls(structure, tuple(options))

    @property
    def name(self) -> str:
        """Part of a folder's name: `svd-data_aware`, `svd-unfolding=input`."""
        return "-".join([self.structure, *(one.removesuffix("=true") for one in self.options)])

    @property
    def text(self) -> str | None:
        """What a result row says under `options`."""
        return ",".join(self.options) or None

    def overrides(self) -> list[str]:
        """The method as choices of conf/."""
        return [f"structure={self.structure}",
                *(one if one.startswith(("budget=", "budget.")) else f"structure.{one}" for one in self.options)]


@dataclass(frozen=True)
class Job:
    """One model to make. `kind`: dense, control, after, during, scratch or experiment; the other fields are its own."""

    name: str
    kind: str
    settings: Settings
    model: str = ""                 # dense, control, during, scratch: conf/model
    method: Method | None = None    # after, during, scratch
    size: float | None = None
    schedule: str = ""              # during, scratch: conf/schedule
    experiment: str = ""            # conf/experiment, its keys, and the model of exp/ that it starts from
    keys: tuple[str, ...] = ()
    source: str = "dense"
    teachers: tuple[str, ...] = ("dense",)  # models of exp/ that its trainings may follow

    @property
    def folder(self) -> Path:
        """Where the model goes."""
        return EXP / self.name

    @property
    def needs(self) -> tuple[str, ...]:
        """The models that have to be there before this one: of one from scratch its teachers, if it has any."""
        if self.kind in ("dense", "control", "during", "scratch"):
            from asrcompress.recipe import models

            return self.teachers if models.taught(self) else ()
        return tuple(dict.fromkeys(["dense", self.source, *self.teachers]))


def dense(settings: Settings) -> Job:
    """The model whose compression is the table."""
    return Job("dense", "dense", settings, settings.model)


def controls(settings: Settings) -> list[Job]:
    """Models trained from scratch that stand beside the compressed ones. Errors: UserError for two alike."""
    pairs = [control.split("=", 1) for control in settings.controls]
    return _with_seeds([Job(_plain(name), "control", settings, model) for name, model in pairs])


def compressed(settings: Settings) -> list[Job]:
    """Every method at every size, after, during and from scratch, and every experiment.

    Errors: UserError for two alike.
    """
    methods = [Method.parse(text) for text in settings.methods]
    jobs = [job for when, method, size in product(settings.when, methods, settings.sizes)
            for job in _of_size(settings, when, method, size)]
    return _with_seeds(jobs + [experiment(settings, text) for text in settings.experiments])


def _with_seeds(jobs: list[Job]) -> list[Job]:
    """Each job once for each of --seeds; with another than --seed it is called NAME-seedN.

    Errors: UserError for two alike, and one called as the dense model is.
    """
    def seeded(job: Job, seed: int) -> Job:
        name = job.name if seed == job.settings.seed else f"{job.name}-seed{seed}"
        return replace(job, name=name, settings=replace(job.settings, seed=seed))

    found = [seeded(job, int(seed)) for job in jobs for seed in job.settings.seeds or (job.settings.seed,)]
    names = [job.name for job in found]
    for name in names:
        require(names.count(name) == 1 and name != "dense",
                f"two models of the sweep would be called {name}; rename one")
    return found


def _of_size(settings: Settings, when: str, method: Method, size: float) -> Iterator[Job]:
    """The jobs of one method at one size: one for each schedule where it gets small during its training."""
    name = _plain(f"{method.name}-{size:g}")
    if when == "after":
        yield Job(name, "after", settings, settings.model, method, size)
    elif when == "scratch":
        yield Job(f"{name}-scratch", "scratch", settings, settings.model, method, size, "scratch")
    else:
        for one in settings.schedule:
            suffix = "" if one == "truncate" else f"-{one}"
            yield Job(f"{name}-during{suffix}", "during", settings, settings.model, method, size, one)


def experiment(settings: Settings, text: str) -> Job:
    """The job of `NAME=EXPERIMENT[,from=OTHER][,teacher=OTHER[+OTHER...]][,KEY=VALUE...]`.

    {epochs} stands for --epochs. Errors: UserError for a key without a value.
    """
    name, _, rest = text.replace("{epochs}", str(settings.epochs)).partition("=")
    chosen, *keys = re.split(r",(?![^\[{]*[\]}])", rest)  # not in a list: quantization.exclude=[a,b]
    for key in keys:
        require("=" in key, f"--experiments {text}: '{key}' is not KEY=VALUE")
    ours = dict(key.split("=", 1) for key in keys if key.startswith(("from=", "teacher=")))
    kept = tuple(key for key in keys if not key.startswith(("from=", "teacher=")))
    return Job(_plain(name), "experiment", settings, settings.model, experiment=chosen, keys=kept,
               source=ours.get("from", "dense"), teachers=tuple(ours.get("teacher", "dense").split("+")))


def _plain(name: str) -> str:
    """A name that is one folder."""
    if not name or "/" in name or name.startswith("."):
        raise UserError(f"'{name}' cannot be the name of a model: it becomes a folder of exp/")
    return name


def run(job: Job) -> bool:
    """Make the model of a job, unless its marker says that it is done; whether it was made. Errors: UserError."""
    from asrcompress.recipe import models

    return models.stage(job).run(lambda: models.make(job), job.settings.redo)


def finished() -> list[str]:
    """The models of exp/ that are done, by name."""
    return sorted(path.parent.name for path in EXP.glob("*/.done"))
