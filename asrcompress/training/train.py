"""The one training program: from scratch, or a compressed model to be fine-tuned."""

import json
import logging
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lhotse import CutSet
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader

from asrcompress.data import batches
from asrcompress.errors import UserError
from asrcompress.files import atomic
from asrcompress.lang.lexicon import Encoder
from asrcompress.models.base import AcousticModel
from asrcompress.training.callbacks.quantization import Written
from asrcompress.training.module import AcousticModule

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", module="lightning.*")


class SpeechData(LightningDataModule):
    """Loaders for lightning; the training loader is made anew each epoch and starts where a checkpoint stopped."""

    def __init__(self, train: CutSet, dev: CutSet, encode: Encoder, config: dict[str, Any]) -> None:
        super().__init__()
        self.train, self.dev, self.encode, self.config = train, dev, encode, config
        self.skip = 0

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        skip, self.skip = self.skip, 0
        return batches.train_loader(
            self.train, self.encode, batch_seconds=self.config["batch_seconds"],
            augmentation=self.config["augmentation"], seed=self.config["seed"], epoch=self.trainer.current_epoch,
            workers=self.config["workers"], share=self.config["epoch_fraction"],
            rank=self.trainer.global_rank, world_size=self.trainer.world_size,
            skip=skip)

    def val_dataloader(self) -> DataLoader:
        return batches.eval_loader(self.dev, self.encode)

    def state_dict(self) -> dict[str, int]:
        assert self.trainer is not None
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        return {"skip": 0 if progress.is_last_batch else progress.current.ready}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.skip = state["skip"]


class ProgressLogger(Callback):
    """One line an epoch, and the seconds that training took (validation not counted), over all runs that it took.

    `epochs` says for each what its parameters were at the end, its speed and its losses: both change where a model gets
    smaller while it is trained.
    """

    def __init__(self) -> None:
        self.wall, self.before = 0.0, (0.0, 0.0)  # seconds of training, and (those, seconds of audio) before the epoch
        self.epochs: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        return {"wall": self.wall, "before": self.before, "epochs": self.epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.wall, self.before, self.epochs = state["wall"], state["before"], state["epochs"]

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.lap = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        now = time.perf_counter()
        self.wall, self.lap = self.wall + now - self.lap, now

    def on_validation_epoch_end(self, trainer: Trainer, module: Any) -> None:
        metrics = {key: float(trainer.callback_metrics[key]) for key in ("loss", "dev_loss", "dev_ter")}
        speed = (module.seconds - self.before[1]) / (self.wall - self.before[0])
        self.before = self.wall, module.seconds
        parameters = sum(parameter.numel() for parameter in module.model.parameters())
        self.epochs.append({"parameters": parameters, "audio_seconds_per_second": round(speed, 1), **metrics})
        if trainer.is_global_zero:
            print(f"epoch {trainer.current_epoch}: loss {metrics['loss']:.4f}, dev loss {metrics['dev_loss']:.4f}, "
                  f"dev token error {metrics['dev_ter']:.2f} %, {speed:.0f} s of audio a second", flush=True)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.lap = time.perf_counter()


class ResumeCheckpoint(Checkpoint):
    """The checkpoint from which a run that was cut off goes on: after each epoch, and within it every `steps` steps."""

    def __init__(self, path: Path, steps: int) -> None:
        self.path, self.steps = path, steps

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        # After its last batch an epoch lacks its validation, and lightning would leave that out when it goes on.
        last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if self.steps and trainer.global_step % self.steps == 0 and not last:
            trainer.save_checkpoint(self.path)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        trainer.save_checkpoint(self.path)


def average(paths: list[Path], model: nn.Module) -> None:
    """Load into `model` the mean of the weights (and BatchNorm statistics) of lightning checkpoints of its shapes."""
    states = [torch.load(path, weights_only=True, map_location="cpu")["state_dict"] for path in paths]
    mean = {}
    for name, value in model.state_dict().items():
        if any(f"model.{name}" not in state or state[f"model.{name}"].shape != value.shape for state in states):
            raise UserError(f"the checkpoints in {paths[0].parent} differ in their layers ({name}), so they have no "
                            "mean; remove the folder and train again with a lower training.average.count")
        each = [state[f"model.{name}"] for state in states]
        whole = value.dim() and not value.is_floating_point()  # masks and codes of `values` have no mean
        mean[name] = each[-1] if whole else torch.stack([one.double() for one in each]).mean(0).to(value.dtype)
    model.load_state_dict(mean)


def fit(model: AcousticModel, criterion: nn.Module, train: CutSet, dev: CutSet, encode: Encoder, config: dict[str, Any],
        out: Path, callbacks: Sequence[Callback] = ()) -> AcousticModel:
    """Train `model` as `conf/training/*.yaml` says and return it with averaged weights, in eval mode.

    Checkpoints go to `out/checkpoints` every epoch; a run that was cut off goes on from the last one.
    """
    torch.manual_seed(config["seed"])
    per_epoch = sum(cut.duration for cut in batches.one_speed_each(train, config["seed"], 0, config["epoch_fraction"]))
    module = AcousticModule(model, criterion, config, config["epochs"] * per_epoch)
    folder = out / "checkpoints"
    best = config["average"]["how"] == "best"
    keep = ModelCheckpoint(
        folder, filename="{epoch:03d}", auto_insert_metric_name=False, save_top_k=config["average"]["count"],
        monitor="dev_loss" if best else "epoch", mode="min" if best else "max")
    resume, progress = folder / "latest.ckpt", ProgressLogger()
    trainer = Trainer(
        max_epochs=config["epochs"], precision=config["precision"],
        callbacks=[progress, Written(), *callbacks, keep, ResumeCheckpoint(resume, config["checkpoint_steps"])],
        logger=TensorBoardLogger(out, name="tensorboard", version=""), log_every_n_steps=20,
        reload_dataloaders_every_n_epochs=1, use_distributed_sampler=False, num_sanity_val_steps=0,
        enable_progress_bar=False, enable_model_summary=False, **config["trainer"])
    trainer.fit(module, SpeechData(train, dev, encode, config), ckpt_path=str(resume) if resume.exists() else None,
                weights_only=True)
    average([Path(path) for path in keep.best_k_models], model)
    if trainer.is_global_zero:
        with atomic(out / "train.json") as temporary:
            temporary.write_text(json.dumps({
                "train_seconds": round(progress.wall, 1),
                "audio_seconds_per_second": round(module.seconds / progress.wall, 1),
                "epochs": config["epochs"], "unaligned": module.unaligned,
                "dev_loss": progress.epochs[-1]["dev_loss"], "dev_ter": progress.epochs[-1]["dev_ter"],
                "by_epoch": progress.epochs}))
    return model.eval()
