"""What a training says of itself: a line an epoch, and the figures of train.json."""

import time
from typing import Any

from lightning import Callback, LightningModule, Trainer


class ProgressLogger(Callback):
    """One line an epoch, and the seconds that training took (validation not counted), over all runs that it took.

    `epochs` says for each how many parameters the model had at its end, its speed (seconds of audio a second) and its
    losses: the first two change where a model gets smaller while it is trained.
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
        speed = (module.seconds - self.before[1]) / max(1e-9, self.wall - self.before[0])
        self.before = self.wall, module.seconds
        parameters = sum(parameter.numel() for parameter in module.model.parameters())
        self.epochs.append({"parameters": parameters, "audio_seconds_per_second": round(speed, 1), **metrics})
        if trainer.is_global_zero:
            print(f"epoch {trainer.current_epoch}: loss {metrics['loss']:.4f}, dev loss {metrics['dev_loss']:.4f}, "
                  f"dev token error {metrics['dev_ter']:.2f} %, {speed:.0f} s of audio a second", flush=True)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.lap = time.perf_counter()

    def facts(self, module: Any) -> dict[str, Any]:
        """What train.json says: seconds, speed, the last epoch's held-out loss and token error, and all epochs."""
        last = self.epochs[-1] if self.epochs else {}
        return {"train_seconds": round(self.wall, 1), "epochs": len(self.epochs), "unaligned": module.unaligned,
                "audio_seconds_per_second": round(module.seconds / self.wall, 1) if self.wall else None,
                "dev_loss": last.get("dev_loss"), "dev_ter": last.get("dev_ter"), "by_epoch": self.epochs}
