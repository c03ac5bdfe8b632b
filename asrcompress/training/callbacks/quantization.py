"""What quantizers ask of a training: schedules follow its progress, and rates are held to their target."""

from typing import Any

from lightning import Callback, Trainer
from torch import Tensor

from asrcompress.compression import quantization
from asrcompress.compression.rate import RateControl


class QuantizationTraining(Callback):
    """Before each step, `advance` of every quantizer; in its loss, the bits of those that have a rate."""

    def __init__(self) -> None:
        self.control = RateControl()

    def state_dict(self) -> dict[str, Any]:
        return {"weight": self.control.weight, "first": self.control.first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.control.weight = state["weight"]
        self.control.first = state.get("first", self.control.first)  # older checkpoints have none

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, index: int) -> None:
        for one in quantization.attached(module.model).values():
            one.advance(module.seconds / module.total_seconds)

    def penalty(self, module: Any) -> Tensor | None:
        """What the loss of this step grows by, a scalar; None where no quantizer has a rate.

        It is part of the loss, as ddp reduces each gradient once a step: in one backward pass.
        """
        penalty = self.control.penalty(module.model, module.seconds / module.total_seconds, module.mean_of_ranks)
        if penalty is not None:
            module.log_dict({"bits per value": self.control.rate, "rate weight": self.control.now})
        return penalty
