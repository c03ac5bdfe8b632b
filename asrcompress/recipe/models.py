"""One model of a recipe: its configuration, its training, its packed file and what its result rows say."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asrcompress import config as configs
from asrcompress import files
from asrcompress.options import make as make_options
from asrcompress.recipe import commands, pipeline, rows
from asrcompress.recipe.stage import Stage
from asrcompress.recipe.sweep import DENSE, EXP, Job

DATA = Path("data")
MODEL = "model.safetensors"
FINETUNE, SCRATCH = ("finetune_options", "finetune_epoch_fraction"), ("scratch_options",)  # settings of such trainings


def stage(job: Job) -> Stage:
    """The stage of a job: another option, lexicon, training set or dense model makes another model."""
    settings = job.settings
    if job.kind == "dense" and settings.dense_model:
        return Stage(job.folder, {}, {"the lang folder": settings.lang, "--dense-model": settings.dense_model})
    inputs = {"the lang folder": settings.lang, "dev": DATA / "dev.text"}
    inputs |= {name: DATA / f"{name}.text" for name in settings.train_sets}
    if job.kind == "dense" and settings.dense_init:
        inputs["--dense-init"] = settings.dense_init
    inputs |= {"the dense model" if name == "dense" else name: EXP / name for name in job.needs}
    return Stage(job.folder, _options(job), inputs)


def _options(job: Job) -> dict[str, Any]:
    """The settings on which the model of a job depends, by the names that the user gives them."""
    criterion, epochs = _training(job)
    options = {"--model": job.model, **job.settings.named("train_sets", "seed")}
    if job.kind == "experiment":
        steps, model = _train_steps(job)
        if not all(map(_names_criterion, steps)):
            options["--criterion"] = criterion
        if steps:
            options |= job.settings.named("train_options", *(FINETUNE if model is None else SCRATCH))
        teacher = [] if job.teachers == ("dense",) else [f"teacher={'+'.join(job.teachers)}"]
        return {**options, "--experiments": [job.experiment, f"from={job.source}", *teacher, *job.keys]}
    kind = {"dense": (), "after": FINETUNE}.get(job.kind, SCRATCH)
    options |= {"--criterion": criterion, **job.settings.named("train_options", *kind)}
    if job.method:
        options |= {"--methods": [job.method.structure, *job.method.options], "--sizes": job.size}
    return {**options, "--epochs": epochs, **({"--schedule": job.schedule} if job.schedule else {})}


def check(job: Job) -> None:
    """Compose what the job will run. Errors: UserError for an unknown model, method, option or experiment."""
    if job.kind == "experiment":
        experiment_trainings(job)
    else:
        from asrcompress.training import schedules
        from asrcompress.training.options import TrainingOptions

        config = training_config(job)
        schedules.build(config, make_options(TrainingOptions, config["training"], "training"))
        if job.method and job.kind == "after":
            from asrcompress.compression import structures

            configs.compose("compress", [*job.method.overrides(), f"size={job.size:g}"])
            structures.check_trained(job.method.structure)


def make(job: Job) -> None:
    """Train, pack and describe the model of a job into its folder."""
    if job.kind == "experiment":
        _run_experiment(job)
        return
    if job.kind == "dense" and job.settings.dense_model:
        _take(job, job.settings.dense_model)
        return
    config = training_config(job)
    init = None
    if job.kind == "after":
        init = _compress(job)
    elif job.kind == "dense" and job.settings.dense_init:
        init = job.folder / "init.safetensors"
        _in_float32("--dense-init", job.settings.dense_init, job.settings.lang, init)
    train(config, job, init)
    commands.here("packed", "save", "--model", job.folder / MODEL, "--out", job.folder / "model.packed")
    rows.describe(job.folder, **_shared(job), structure=_structure(job, config), size=job.size or 1.0,
                  options=job.method.text if job.method else None, quantization="float32", coder="raw")


def _take(job: Job, path: Path) -> None:
    """Let a model that was trained before be the dense one."""
    _in_float32("--dense-model", path, job.settings.lang, job.folder / MODEL)
    commands.here("packed", "save", "--model", job.folder / MODEL, "--out", job.folder / "model.packed")
    files.write_json(job.folder / "train.json", {})
    rows.describe(job.folder, **_shared(job), structure="dense", size=1.0, quantization="float32", coder="raw")


def _in_float32(option: str, path: Path, lang: Path, out: Path) -> None:
    """Write the model of a file into another, its values as the file gives them, in float32.

    Errors: UserError for a file that is missing or is no model, and for a model of other tokens than the lang folder.
    """
    from asrcompress.compression import load, quantization, save_model
    from asrcompress.lang.tokens import read_symbols
    from asrcompress.options import require

    model: Any = quantization.materialize(load(files.require_file(path, f"the model of {option}")))
    theirs, ours = model.config.get("vocab"), len(read_symbols(lang / "tokens.txt"))
    require(theirs == ours, f"{option} {path.name} has {theirs} tokens, and {lang}/tokens.txt has {ours}; give a model "
            "of these tokens")
    save_model(out, model)


def training_config(job: Job) -> dict[str, Any]:
    """`conf/train.yaml` for a job.

    Sets and the teacher's path are data: they are put in after Hydra has read its texts.
    """
    return _with_data(configs.compose("train", [f"criterion={_training(job)[0]}", *_words(job)]), job)


def train(config: dict[str, Any], job: Job, init: Path | None, out: Path | None = None) -> None:
    """Train into `out`, by default the job's folder, whose config.json says as what.

    In this process, or, where several devices share the work, in one of its own: each device then runs that command
    again.
    """
    out = out or job.folder
    files.write_json(out / "config.json", config)
    if _many_devices(config["training"].get("trainer") or {}):
        words = ["--data", DATA, "--lang", job.settings.lang, "--out", out, "--config", out / "config.json"]
        commands.start(sys.executable, "train", *words, *(["--init", init] if init else []))
    else:
        from asrcompress.training import run

        run.train(config, DATA, job.settings.lang, out, init)


def _many_devices(trainer: dict[str, Any]) -> bool:
    """Whether lightning would start processes for further devices."""
    import torch

    devices, nodes = trainer.get("devices", "auto"), trainer.get("num_nodes", 1)
    on_gpu = trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda")
    return nodes != 1 or (on_gpu and torch.cuda.device_count() > 1 if devices in ("auto", -1) else devices != 1)


def _training(job: Job) -> tuple[str, int]:
    """Criterion and epochs of the training of a job."""
    settings = job.settings
    if job.kind in ("after", "experiment"):
        return settings.finetune_criterion, settings.finetune_epochs
    if job.kind == "dense":
        return settings.dense_criterion, settings.epochs
    return (settings.scratch_criterion or settings.dense_criterion,
            settings.epochs if settings.scratch_epochs is None else settings.scratch_epochs)


def taught(job: Job) -> bool:
    """Whether a teacher takes part in the training of a job: the dense model, unless its options name another."""
    from asrcompress.training import criteria

    return job.kind != "dense" and criteria.taught(_training(job)[0])


def _words(job: Job) -> list[str]:
    """The overrides of conf/train.yaml, but for the criterion."""
    settings, epochs = job.settings, _training(job)[1]
    goes_on = job.kind == "dense" and settings.dense_init is not None
    words = ["training.ctc_epochs=0"] if goes_on or taught(job) else []
    if job.kind == "after":
        return ["training=finetune", *words, f"training.epochs={epochs}",
                f"training.epoch_fraction={settings.finetune_epoch_fraction:g}", *settings.train_options,
                *settings.finetune_options]
    words = [f"model={job.model}", *words, f"training.epochs={epochs}", *settings.train_options]
    if job.method:
        words += [*job.method.overrides(), f"size={job.size:g}", f"schedule={job.schedule}"]
    return words if job.kind == "dense" else [*words, *settings.scratch_options]


def _with_data(config: dict[str, Any], job: Job) -> dict[str, Any]:
    """A composed configuration of a training with the sets, the seed and, if none are named, the teachers of the job.
    """
    config |= {"train_sets": list(job.settings.train_sets), "seed": job.settings.seed}
    if config["criterion"].get("teacher", "") is None:
        files = [str(EXP / name / MODEL) for name in job.teachers]
        config["criterion"]["teacher"] = files[0] if len(files) == 1 else files
    return config


def _compress(job: Job) -> Path:
    """The dense model compressed by the method of a job, to be fine-tuned."""
    assert job.method is not None
    overrides = [*job.method.overrides(), f"size={job.size:g}", f"seed={job.settings.seed}"]
    calibrate = ["--calibrate", DATA, "--calibrate-set", job.settings.train_sets[0]]
    aware = configs.compose("compress", overrides)["structure"].get("data_aware")
    init = job.folder / "init.safetensors"
    commands.here("compress", "--model", DENSE / MODEL, "--out", init, *(calibrate if aware else []), *overrides)
    return init


def teachers(config: dict[str, Any]) -> str | None:
    """Whom a training follows, for its row: names of models of exp/, and other files as they are."""
    given = config["criterion"].get("teacher") or []
    files = [Path(file) for file in ([given] if isinstance(given, str) else given)]
    return " ".join(file.parent.name if file.parent.parent == EXP else str(file) for file in files) or None


def _structure(job: Job, config: dict[str, Any]) -> str:
    """What a row says: the method's structure, or semi_orthogonal for a model that is built of such factors."""
    if job.method:
        return job.method.structure
    return "semi_orthogonal" if any(layer.get("bottleneck") for layer in config["model"].get("stack", [])) else "dense"


def _shared(job: Job) -> dict[str, Any]:
    """What the rows of every kind of job say."""
    when = {"dense": "none", "control": "scratch", "experiment": "after"}.get(job.kind, job.kind)
    teacher = teachers(training_config(job)) if job.kind not in ("dense", "experiment") else None
    return {"model": job.model, "when": when, "seed": job.settings.seed, "teacher": teacher,
            "train_set": " ".join(job.settings.train_sets), "command": job.settings.command}


def experiment_config(job: Job) -> dict[str, Any]:
    """`conf/experiment.yaml` for a job; its keys with a dot are options of a method, and go to the steps."""
    keys = [f"experiment.{key}" for key in job.keys if "." not in key.partition("=")[0]]
    return configs.compose("experiment", [f"experiment={job.experiment}", *keys, f"seed={job.settings.seed}"])


def _step_config(job: Job, words: Sequence[str], scratch: bool) -> dict[str, Any]:
    """`conf/train.yaml` for a training step of an experiment: its own `words`, and the recipe's for such a training."""
    settings = job.settings
    own = [] if _names_criterion(words) else [f"criterion={settings.finetune_criterion}"]
    fraction = [] if scratch else [f"training.epoch_fraction={settings.finetune_epoch_fraction:g}"]
    more = settings.scratch_options if scratch else settings.finetune_options
    return _with_data(configs.compose("train", [*own, *words, *fraction, *settings.train_options, *more]), job)


def experiment_trainings(job: Job) -> tuple[list[dict[str, Any]], str | None]:
    """What each training step of an experiment composes, and the model that the first one makes anew, if it does.

    Errors: UserError.
    """
    steps, model = _train_steps(job)
    return [_step_config(job, words, model is not None) for words in steps], model


def _train_steps(job: Job) -> tuple[list[list[str]], str | None]:
    """The overrides of each training step of an experiment, and the model that the first one makes anew."""
    steps = [words for kind, words in pipeline.steps(experiment_config(job), job.keys) if kind == "train"]
    model = next((word.removeprefix("model=") for words in steps[:1] for word in words if word.startswith("model=")),
                 None)
    return steps, model


def _names_criterion(words: Sequence[str]) -> bool:
    """Whether a training step chooses its criterion itself."""
    return any(word.startswith("criterion=") for word in words)


def _run_experiment(job: Job) -> None:
    trainings, model = experiment_trainings(job)

    def trained(words: Sequence[str], init: Path | None, out: Path) -> None:
        train(_step_config(job, words, model is not None), job, init, out)

    found = pipeline.run(experiment_config(job), job.keys, EXP / job.source / MODEL, DENSE / MODEL, job.folder, trained)
    taught_by = next(filter(None, map(teachers, trainings)), None)
    facts: dict[str, Any] = {"teacher": taught_by, "options": ",".join(job.keys) or None}
    if model is not None:
        facts |= {"when": "scratch", "model": model}
    elif job.source != "dense":
        facts["model"] = rows.of_model(EXP / job.source)["model"]
    rows.describe(job.folder, **{**_shared(job), **found, **facts})
