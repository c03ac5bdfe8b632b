"""How long the tasks of a sweep may take: a guess to plan with, from the dense model's own time once it was trained."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from asrcompress import files
from asrcompress.data.utterances import seconds_of
from asrcompress.recipe import models, pipeline
from asrcompress.recipe.data import DATA
from asrcompress.recipe.graph import Task
from asrcompress.recipe.settings import Settings
from asrcompress.recipe.sweep import DENSE, dense

NOMINAL = 3e-11  # seconds of training for each MAC of inference: the TDNN of 9.2 M, one core of an AMD EPYC, bfloat16
TAUGHT = 4 / 3  # a teacher adds a forward pass to the student's forward and backward pass
SEARCH = 0.05   # seconds for a second of speech and a search, the network's share and the choice of scales included
START, TARGET = 10.0, 600.0  # seconds of a process that does nothing, and of the table of a byte budget


def seconds(tasks: Sequence[Task], settings: Settings) -> dict[str, float]:
    """Task key -> seconds that it may take. Errors: UserError where a set that they read is not prepared."""
    train = sum(map(_speech, settings.train_sets)) if any(task.job for task in tasks) else 0.0
    test = sum(map(_speech, ("dev", *settings.test_sets))) if any(task.job is None for task in tasks) else 0.0
    rate = NOMINAL
    if (DENSE / "train.json").exists():
        trained = files.read_json(DENSE / "train.json").get("train_seconds")  # none of a model that was taken
        if trained and (work := train * _passes(models.training_config(dense(settings)), settings.model)):
            rate = trained / work
    return {task.key: START + _own(task, settings, rate * train, SEARCH * test) for task in tasks}


def _own(task: Task, settings: Settings, train: float, test: float) -> float:
    """Seconds of a task, of which a training takes `train` for each MAC and epoch, and a search `test`."""
    if task.job is None:
        split = settings.decode_parts > 1  # part 0 chooses scales, and the task without a part joins the others
        return test * len(settings.searches) / settings.decode_parts if task.part or not split else 0.0
    if task.job.kind != "experiment":
        return train * _passes(models.training_config(task.job), task.job.model)
    steps = pipeline.steps(models.experiment_config(task.job), task.job.keys)
    trainings, model = models.experiment_trainings(task.job)
    targets = sum(kind == "target" for kind, _ in steps)
    return train * sum(_passes(one, model or task.job.model) for one in trainings) + TARGET * targets


def _passes(config: dict[str, Any], model: str) -> float:
    """Epochs of a training times the MACs of its model for a second of speech, at its full size."""
    epochs = config["training"]["epochs"] * config["training"]["epoch_fraction"]
    return epochs * _macs(model) * (TAUGHT if "teacher" in config["criterion"] else 1.0)


@cache
def _macs(model: str) -> int:
    """MACs of a model of conf/model for a second of speech."""
    from asrcompress import config, models
    from asrcompress.measure.macs import macs_per_second

    return macs_per_second(models.build({**config.compose("train", [f"model={model}"])["model"], "vocab": 70}))


@cache
def _speech(name: str) -> float:
    """Seconds of speech in a prepared set, each utterance once."""
    return seconds_of(DATA / f"{name}.jsonl.gz")
