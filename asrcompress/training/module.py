"""The training step as a lightning module: criterion, learning rate, what is logged."""

import math
from collections.abc import Iterator
from typing import Any

import kaldialign
import torch
from lightning import LightningModule
from torch import Tensor, nn

from asrcompress.compression import record
from asrcompress.compression.structures.low_rank.semi_orthogonal import SemiOrthogonal, constrain
from asrcompress.data.batches import Batch, hash_seed
from asrcompress.errors import UserError
from asrcompress.lang.tokens import collapse
from asrcompress.models.base import AcousticModel
from asrcompress.training import surgery
from asrcompress.training.criteria import Criterion
from asrcompress.training.criteria._hidden import outputs
from asrcompress.training.criteria.ctc import CTC
from asrcompress.training.options import TrainingOptions


def learning_rate(progress: float, peak: float, warmup: float) -> float:
    """Linear rise over the share `warmup` of the training, then a cosine to 1 % of the peak; progress in [0, 1]."""
    if progress < warmup:
        return peak * max(progress, 0.01 * warmup) / warmup
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))
    return peak * (0.01 + 0.99 * fall)


class AcousticModule(LightningModule):
    """Trains any model of `asrcompress.models`, compressed or not.

    Progress, and with it the learning rate, is counted in seconds of audio, so it does not depend on how batches fall.
    Each step is seeded by (seed, epoch, batch): a run that goes on from a checkpoint repeats what it would have done.
    A checkpoint says how the layers are made: they may have changed during the training.

    Several processes (ddp) take a step with the loss per frame of all their batches together, as one process would with
    one batch of all. Dropout is drawn, and BatchNorm takes its statistics, in each process for its own batch; its
    running statistics are those of the first process.
    """

    def __init__(self, model: AcousticModel, criterion: Criterion, options: TrainingOptions, seed: int,
                 total_seconds: float) -> None:
        super().__init__()
        self.model, self.criterion, self.options, self.seed = model, criterion, options, seed
        self.total_seconds = total_seconds
        criterion.begin(model)
        self.ctc = CTC(model.config["vocab"])
        self.seconds = 0.0
        self.unaligned = 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        options = self.options.optimizer
        decayed, free = self.parameter_groups()
        groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": free, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=options.lr, betas=(options.betas[0], options.betas[1]), fused=True)

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """(those that decay, those that do not: vectors, and factors whose scale floats with the constraint).

        The criterion may have some of its own, which are in no model file.
        """
        floating = set(self.constrained())
        trained = [p for p in self.parameters() if p.requires_grad]
        free = {p for p in trained if p.dim() <= 1 or p in floating}
        return [p for p in trained if p not in free], [p for p in trained if p in free]

    def constrained(self) -> Iterator[Tensor]:
        """The factors that are kept semi-orthogonal: those of a TDNN-F, and those of structures."""
        yield from (layer.weight for layer in self.model.semi_orthogonal())
        yield from (module.right for module in self.model.modules() if isinstance(module, SemiOrthogonal))

    def configure_gradient_clipping(self, optimizer: Any, gradient_clip_val: Any = None,
                                    gradient_clip_algorithm: str | None = None) -> None:
        """Lightning refuses to clip for a fused optimizer (meant for loss scaling, which bfloat16 does not need)."""
        nn.utils.clip_grad_norm_(self.model.parameters(), self.options.gradient_clip)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        torch.manual_seed(hash_seed(self.seed, self.current_epoch, index, self.global_rank))
        optimizer = self.optimizers()
        options = self.options
        self.criterion.progress = self.seconds / self.total_seconds
        rate = learning_rate(self.criterion.progress, options.optimizer.lr, options.warmup)
        for group in optimizer.param_groups:  # type: ignore[union-attr]
            group["lr"] = rate
        _, _, result = self._loss(batch)
        here = torch.stack([result[name].detach().to(self.device, torch.float32) for name in ("frames", "unaligned")]
                           + [batch["x_lens"].sum().to(self.device, torch.float32)])
        own = float(here[0])  # reduce changes its tensor
        frames, unaligned, heard = self.trainer.strategy.reduce(here, reduce_op="sum").tolist()  # of all ranks
        self.unaligned += int(unaligned)
        self.seconds += heard / 100 / self.criterion.views
        loss = result["loss"]
        if self.trainer.world_size > 1:  # ddp takes the mean of the ranks: weighted so, it is the mean of all frames
            loss = loss * (own * self.trainer.world_size / max(1.0, frames))
        parts = {name: value for name, value in result.items() if name not in ("loss", "frames", "unaligned")}
        self.log_dict({"loss": loss.detach(), "lr": rate, **parts}, prog_bar=True, batch_size=1, sync_dist=True)
        return loss + sum(self._penalties())

    def _penalties(self) -> Iterator[Tensor]:
        """What the callbacks add to the loss, such as the rate of quantizers."""
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if hasattr(callback, "penalty") and (penalty := callback.penalty(self)) is not None:
                yield penalty

    def mean_of_ranks(self, value: Tensor) -> Tensor:
        """The mean of a scalar over the processes that train."""
        return self.trainer.strategy.reduce(value.clone(), reduce_op="mean")  # type: ignore[return-value]

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Any]]:
        weight = self.options.intermediate_ctc if torch.is_grad_enabled() else 0.0  # of a step, not of a validation
        self.model.with_intermediate = weight > 0
        with outputs(self.model, self.criterion.listens if self.training else ()) as heard:
            log_probs, lens = self.model(batch["x"], batch["x_lens"])
        batch = {**batch, "heard": heard}
        with torch.autocast(log_probs.device.type, enabled=False):
            criterion: Any = self.ctc if self.current_epoch < self.options.ctc_epochs else self.criterion
            result = criterion(log_probs, lens, *(batch[name] for name in criterion.inputs))
            if criterion is self.ctc:  # several processes need a gradient of every parameter
                result["loss"] = result["loss"] + 0.0 * sum(one.sum() for one in self.criterion.parameters())
            if weight and self.model.intermediate is not None:
                aside = self.ctc(self.model.intermediate, lens, *(batch[name] for name in self.ctc.inputs))["loss"]
                result["loss"] = (1 - weight) * result["loss"] + weight * aside
            return log_probs, lens, result

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The constraint belongs to the step: lightning's hooks after it come later than a checkpoint of the step."""
        super().optimizer_step(*args, **kwargs)
        every = self.options.semi_orthogonal_every
        if every and (self.global_step + 1) % every == 0:
            for factor in self.constrained():
                constrain(factor)

    def validation_step(self, batch: Batch, index: int) -> None:
        log_probs, lens, result = self._loss(batch)
        best = log_probs.argmax(-1).cpu()
        errors = tokens = 0
        for path, length, target, count in zip(best, lens, batch["targets"], batch["target_lens"], strict=True):
            reference = target[:count].tolist()
            errors += kaldialign.edit_distance(reference, collapse(path[:length].tolist()))["total"]
            tokens += len(reference)
        # Lightning takes the mean of the ranks' weights as an integer: as multiples of their number it is exact.
        ranks = self.trainer.world_size
        self.log("dev_loss", result["loss"], batch_size=ranks * max(1, int(result["frames"])), sync_dist=True)
        self.log("dev_ter", 100 * errors / max(1, tokens), batch_size=ranks * max(1, tokens), sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["seconds"], checkpoint["unaligned"] = self.seconds, self.unaligned
        checkpoint["layers"] = record.layers(self.model)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.seconds, self.unaligned = checkpoint["seconds"], checkpoint["unaligned"]
        surgery.rebuild(self.model, checkpoint.get("layers") or {})
        found = {name: tuple(tensor.shape) for name, tensor in checkpoint["state_dict"].items()}
        ours = {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}
        for name in [*ours, *found]:
            there, here = found.get(name, "missing"), ours.get(name, "missing")
            if there != here:
                raise UserError(f"the checkpoint is one of another training ({name} is {there} there and {here} here); "
                                "train into another folder, or remove that one")
