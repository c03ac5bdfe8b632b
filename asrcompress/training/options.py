"""The options of a training: what a file of conf/training holds."""

from dataclasses import dataclass, fields
from typing import Literal

from asrcompress.options import require
from asrcompress.precision import Precision


@dataclass(frozen=True)
class OptimizerOptions:
    """AdamW."""

    lr: float = 2e-3  # at the peak
    weight_decay: float = 0.05
    betas: tuple[float, ...] = (0.9, 0.98)

    def __post_init__(self) -> None:
        require(self.lr >= 0 and self.weight_decay >= 0, f"training: optimizer.lr is {self.lr:g} and weight_decay "
                f"{self.weight_decay:g}; they are at least 0")
        require(len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
                f"training: optimizer.betas are two numbers from 0 to below 1, not {list(self.betas)}")


@dataclass(frozen=True)
class AverageOptions:
    """The epoch checkpoints whose weights are averaged at the end."""

    how: Literal["last", "best"] = "last"  # best: by the held-out loss (of one criterion: with ctc_epochs 0)
    count: int = 3


@dataclass(frozen=True)
class TrainerOptions:
    """Where lightning trains."""

    accelerator: str = "auto"
    devices: int | str = "auto"
    num_nodes: int = 1
    strategy: str = "auto"


@dataclass(frozen=True)
class SpecAugmentOptions:
    """Masks of `data.augment.spec_augment`; widths in mel bins and in frames."""

    frequency_masks: int = 2
    frequency_width: int = 16
    time_masks_per_second: float = 0.5
    time_width: int = 20
    time_fraction: float = 0.3

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            require(value >= 0, f"training: spec_augment.{field.name} is {value:g}; it is at least 0")
        require(self.time_fraction <= 1, f"training: spec_augment.time_fraction is {self.time_fraction:g}; it is at "
                "most 1")


@dataclass(frozen=True)
class AugmentationOptions:
    """What is done to the features of a batch (`data.augment`)."""

    warp: float = 0.08  # the mel axis is stretched by up to this much
    noise: float = 0.2  # share of utterances with noise added
    snr: tuple[float, ...] = (10.0, 30.0)  # dB, from and to
    spec_augment: SpecAugmentOptions = SpecAugmentOptions()

    def __post_init__(self) -> None:
        require(0 <= self.warp < 1 and 0 <= self.noise <= 1, f"training: augmentation.warp is {self.warp:g} and noise "
                f"{self.noise:g}; they are from 0 to below 1, and to 1")
        require(len(self.snr) == 2 and self.snr[0] <= self.snr[1],
                f"training: augmentation.snr is {list(self.snr)}; it is two numbers, from and to")


@dataclass(frozen=True)
class TrainingOptions:
    """One training; see conf/training/scratch.yaml."""

    epochs: int = 8
    epoch_fraction: float = 1.0  # of the utterances that an epoch takes, drawn anew each epoch
    ctc_epochs: int = 1  # epochs of CTC before another criterion takes over
    mode: Literal["train", "eval"] = "train"  # eval: nothing is dropped, and BatchNorms keep their statistics
    intermediate_ctc: float = 0.0  # weight of CTC on the middle of a model that has outputs there
    batch_seconds: float = 60.0  # of audio in a batch
    max_duration: float | None = 22.0  # seconds; longer utterances are left out and counted
    optimizer: OptimizerOptions = OptimizerOptions()
    warmup: float = 0.05  # share of the training in which the learning rate rises
    gradient_clip: float = 5.0
    precision: Precision = "auto"
    average: AverageOptions = AverageOptions()
    semi_orthogonal_every: int = 4  # steps between two constraints of semi-orthogonal factors; 0: never
    checkpoint_steps: int = 0  # also checkpoint every so many steps; 0: once an epoch
    workers: int = 1
    trainer: TrainerOptions = TrainerOptions()
    augmentation: AugmentationOptions | None = AugmentationOptions()

    def __post_init__(self) -> None:
        require(self.epochs >= 0 and self.average.count >= 1,
                f"training: epochs is {self.epochs} and average.count {self.average.count}; they are at least 0 and 1")
        require(0 <= self.intermediate_ctc < 1,
                f"training: intermediate_ctc is {self.intermediate_ctc:g}; it is from 0 to below 1")
        require(0 < self.epoch_fraction <= 1 and 0 <= self.warmup < 1, f"training: epoch_fraction "
                f"{self.epoch_fraction:g} is above 0, at most 1, and warmup {self.warmup:g} from 0 to below 1")
        require(self.batch_seconds > 0 and self.gradient_clip > 0 and (self.max_duration is None or
                                                                       self.max_duration > 0),
                "training: batch_seconds, gradient_clip and max_duration are above 0; max_duration=null has no limit")
        for name in ("ctc_epochs", "semi_orthogonal_every", "checkpoint_steps", "workers"):
            require(getattr(self, name) >= 0, f"training: {name} is {getattr(self, name)}; it is at least 0")
