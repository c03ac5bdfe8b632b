"""The one training program: from scratch, or a compressed model to be fine-tuned."""

import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lhotse import CutSet
from lightning import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from asrcompress import precision
from asrcompress.compression import quantization
from asrcompress.data import batches
from asrcompress.data.utterances import Utterances
from asrcompress.errors import UserError
from asrcompress.files import atomic
from asrcompress.lang.lexicon import Encoder
from asrcompress.models.base import AcousticModel
from asrcompress.training import processes
from asrcompress.training.callbacks import resume_checkpoint
from asrcompress.training.callbacks.progress_logger import ProgressLogger
from asrcompress.training.callbacks.quantization import QuantizationTraining
from asrcompress.training.callbacks.resume_checkpoint import AtomicCheckpointIO, EpochCheckpoints, ResumeCheckpoint
from asrcompress.training.criteria import Criterion
from asrcompress.training.data import SpeechData
from asrcompress.training.module import AcousticModule
from asrcompress.training.options import TrainingOptions

for name in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(name).setLevel(logging.WARNING)
warnings.filterwarnings("ignore", module="lightning.*")


def fit(model: AcousticModel, criterion: Criterion, train: Utterances, dev: CutSet, encode: Encoder,
        options: TrainingOptions, seed: int, out: Path, callbacks: Sequence[Callback] = (),
        max_time: timedelta | None = None) -> AcousticModel:
    """Train `model` and return it with averaged weights, in eval mode; with no epochs, as it is.

    Checkpoints go to `out/checkpoints` every epoch; a run that was cut off goes on from the last one. `out/train.json`
    says what was measured. `max_time` ends the training early. Errors: UserError for a checkpoint that is damaged or
    that another training left.
    """
    torch.manual_seed(seed)
    model.train(options.mode == "train")  # lightning keeps the mode
    resume, progress = out / "checkpoints" / "latest.ckpt", ProgressLogger()
    per_epoch = batches.seconds_of_epoch(train, seed, options.epoch_fraction)
    module = AcousticModule(model, criterion, options, seed, options.epochs * per_epoch)
    keep = EpochCheckpoints(resume.parent, options.average.count, options.average.how == "best")
    own = [progress, QuantizationTraining(), *callbacks, keep, ResumeCheckpoint(resume, options.checkpoint_steps)]
    trainer = _trainer(options, out, own, max_time)
    if resume.exists():
        resume_checkpoint.check(resume, options.epochs)
    if options.epochs:
        if trainer.is_global_zero:
            print(f"precision {trainer.precision}", flush=True)
        with processes.together(trainer):
            trainer.fit(module, SpeechData(train, dev, encode, options, seed, criterion), weights_only=True,
                        ckpt_path=str(resume) if resume.exists() else None)
        average([Path(path) for path in _kept(keep, model)], model)
    if trainer.is_global_zero:
        with atomic(out / "train.json") as temporary:
            temporary.write_text(json.dumps({**progress.facts(module), "precision": trainer.precision}))
    return model.eval()


def _kept(keep: EpochCheckpoints, model: nn.Module) -> list[str]:
    """The checkpoints to take the mean of; where values are trained as they are rounded (`epr`), the last or best one:
    the mean of two, rounded, is another model (0.049 nats a frame for 0.038 of a Conformer at 1.5 bits)."""
    rounded = any(one.rate() is not None for one in quantization.attached(model).values())
    return [keep.best_model_path] if rounded and keep.best_model_path else list(keep.best_k_models)


def _trainer(options: TrainingOptions, out: Path, callbacks: list[Any], max_time: timedelta | None) -> Trainer:
    """Lightning's trainer, in the precision that its device is fast in where that is `auto`.

    Errors: UserError for what lightning does not know, or this machine has not.
    """
    gpu = options.trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    try:
        return Trainer(
            max_epochs=options.epochs, max_time=max_time,
            precision=precision.resolve(options.precision, "cuda" if gpu else "cpu"),  # type: ignore[arg-type]
            callbacks=callbacks, plugins=[AtomicCheckpointIO()],
            logger=TensorBoardLogger(out, name="tensorboard", version=""), log_every_n_steps=20,
            reload_dataloaders_every_n_epochs=1, use_distributed_sampler=False, num_sanity_val_steps=0,
            enable_progress_bar=False, enable_model_summary=False, **asdict(options.trainer))
    except (ValueError, MisconfigurationException) as error:
        raise UserError(f"training.trainer: {' '.join(str(error).split())[:200]}") from None


def average(paths: list[Path], model: nn.Module) -> None:
    """Load into `model` the mean of the weights (and BatchNorm statistics) of lightning checkpoints of its shapes.

    Errors: UserError for a damaged file, and for checkpoints that differ in their layers.
    """
    if not paths:
        raise UserError("no checkpoint of an epoch is left to take the weights from: the folder was moved or emptied; "
                        "remove it and train again")
    states = [resume_checkpoint.read(path)["state_dict"] for path in paths]
    mean = {}
    for name, value in model.state_dict().items():
        if any(f"model.{name}" not in state or state[f"model.{name}"].shape != value.shape for state in states):
            raise UserError(f"the checkpoints in {paths[0].parent} differ in their layers ({name}), so they have no "
                            "mean; remove the folder and train again with a lower training.average.count")
        each = [state[f"model.{name}"] for state in states]
        whole = value.dim() and not value.is_floating_point()  # masks and codes of quantizers have no mean
        mean[name] = each[-1] if whole else torch.stack([one.double() for one in each]).mean(0).to(value.dtype)
    model.load_state_dict(mean)
