"""The checkpoint from which a training that was cut off goes on; how checkpoints are written and read."""

from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from asrcompress.errors import UserError
from asrcompress.files import atomic


class ResumeCheckpoint(Checkpoint):
    """Writes `path` after each epoch, and within it every `steps` steps (0: only after)."""

    def __init__(self, path: Path, steps: int) -> None:
        self.path, self.steps = path, steps

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        # After its last batch an epoch lacks its validation, and lightning would leave that out when it goes on.
        last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if self.steps and trainer.global_step % self.steps == 0 and not last:
            trainer.save_checkpoint(self.path)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        trainer.save_checkpoint(self.path)


class EpochCheckpoints(ModelCheckpoint):
    """Lightning's checkpoints of epochs, saved before that from which a training goes on, so that it knows them.

    The folder may have been moved since.
    """

    def __init__(self, folder: Path, count: int, best: bool) -> None:
        super().__init__(folder, filename="{epoch:03d}", auto_insert_metric_name=False, save_top_k=count,
                         monitor="dev_loss" if best else "epoch", mode="min" if best else "max",
                         save_on_train_epoch_end=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The state of a checkpoint, with its files in this folder."""
        def here(path: str) -> str:
            return str(Path(str(self.dirpath), Path(path).name)) if path else path

        paths = {key: here(state_dict[key]) for key in ("best_model_path", "kth_best_model_path", "last_model_path")}
        kept = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": kept, "dirpath": self.dirpath})


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's files, written beside their name and then renamed: a process that is killed leaves the old ones."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        try:
            with atomic(path) as temporary:
                torch.save(checkpoint, temporary)
        except (OSError, RuntimeError) as error:  # torch turns a full disk into a RuntimeError
            raise UserError(f"the checkpoint {path} cannot be written ({_short(error)}); make room and run again: the "
                            "training goes on from the one before") from None


def read(path: Path) -> dict[str, Any]:
    """A checkpoint of lightning, on the CPU; never unpickled. Errors: UserError where it is missing or damaged."""
    try:
        checkpoint = torch.load(path, weights_only=True, map_location="cpu")
        return dict(checkpoint)
    except Exception as error:  # torch raises anything from EOFError to UnpicklingError
        raise UserError(f"the checkpoint {path} is damaged ({_short(error)}); remove it to start again, or copy an "
                        "epoch's checkpoint beside it to its name to go on from there") from None


def check(path: Path, epochs: int) -> None:
    """Errors: UserError unless a training of so many epochs can go on from this checkpoint."""
    checkpoint = read(path)
    if not {"state_dict", "epoch", "seconds"} <= set(checkpoint):
        raise UserError(f"{path} is not a checkpoint of this program; remove it to start again")
    begun = int(checkpoint["epoch"]) + 1
    if begun > epochs:
        raise UserError(f"{path} has {begun} epochs begun and training.epochs is {epochs}; give as many or more, or "
                        f"remove {path.parent} to start again")


def _short(error: Exception) -> str:
    """The first line of an error."""
    return (str(error).splitlines() or [type(error).__name__])[0][:120] or type(error).__name__
