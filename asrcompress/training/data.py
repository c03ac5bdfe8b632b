"""The loaders of a training, as lightning asks for them."""

from dataclasses import asdict

from lhotse import CutSet
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from asrcompress.data import batches
from asrcompress.data.utterances import Utterances
from asrcompress.lang.lexicon import Encoder
from asrcompress.options import require
from asrcompress.training.criteria import Criterion
from asrcompress.training.options import TrainingOptions


class SpeechData(LightningDataModule):
    """The training loader is made anew each epoch and starts where a checkpoint stopped."""

    def __init__(self, train: Utterances, dev: CutSet, encode: Encoder, options: TrainingOptions, seed: int,
                 criterion: Criterion) -> None:
        super().__init__()
        self.train, self.dev, self.encode, self.options, self.seed = train, dev, encode, options, seed
        self.augmentation, self.views = criterion.augmentation(options.augmentation), criterion.views
        self.skip = 0

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        skip, self.skip = self.skip, 0
        return batches.train_loader(
            self.train, self.encode, batch_seconds=self.options.batch_seconds,
            augmentation=asdict(self.augmentation) if self.augmentation else None, seed=self.seed,
            epoch=self.trainer.current_epoch, workers=self.options.workers, epoch_fraction=self.options.epoch_fraction,
            rank=self.trainer.global_rank, world_size=self.trainer.world_size, skip=skip,
            views=self.views)

    def val_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        return batches.eval_loader(self.dev, self.encode, rank=self.trainer.global_rank,
                                   world_size=self.trainer.world_size)

    def state_dict(self) -> dict[str, int]:
        assert self.trainer is not None
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        return {"skip": 0 if progress.is_last_batch else progress.current.ready, "processes": self.trainer.world_size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Start after the batches that were trained on. Errors: UserError where other processes had other batches."""
        assert self.trainer is not None
        before, now = state.get("processes", self.trainer.world_size), self.trainer.world_size
        require(state["skip"] == 0 or before == now,
                f"the training was cut off in the middle of an epoch on {before} processes, and {now} would divide its "
                f"batches otherwise; go on with training.trainer.devices for {before}")
        self.skip = state["skip"]
