"""Batches of splits, the same for any number of processes and workers."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import lightning as L
from torch import Tensor
from torch.utils.data import DataLoader

from diffusion.common.validate import check_choice, check_counts
from diffusion.data.reading.order import Positions, Reading, Shuffled, epoch
from diffusion.data.reading.workers import loader
from diffusion.data.requests.base import in_order, spread
from diffusion.data.sets import UNREAD, ImageSet, OrEmpty
from diffusion.spec import Batch


class Batches(L.LightningDataModule, ABC):
    """Splits, read by position in training and in order in evaluation.

    Training wants a Trainer with `use_distributed_sampler: false`, and best `max_steps`,
    `max_epochs: -1` and `check_val_every_n_epoch: null`. Where epochs are asked for, one is a pass
    over the training set in whole optimizer steps: the few pictures that are left come first in the
    next.

    Args:
        batch_size: Pictures per batch and process.
        num_workers: Processes that read ahead; the batches do not depend on it.
        flip: Mirror half of the training pictures left to right.
        seed: Decides the order of training, the flips and the crops, 0 .. 2³² − 1.
        crop: Side of random squares that training reads in place of whole pictures; None for these.
            A convolutional network that learns from them draws whole pictures.

    Raises:
        ValueError: If a number is out of its range.
    """

    SPLITS: ClassVar = ("train", "val", "test")

    train_set: ImageSet = UNREAD
    val_set: ImageSet = UNREAD
    test_set: ImageSet = UNREAD

    def __init__(
        self,
        batch_size: int = 64,
        num_workers: int = 0,
        flip: bool = False,
        seed: int = 0,
        crop: int | None = None,
    ) -> None:
        super().__init__()
        check_counts("data", batch_size=batch_size, crop=crop)
        check_counts("data", least=0, num_workers=num_workers)
        check_counts("data", least=0, most=2**32 - 1, seed=seed)
        self.batch_size, self.num_workers = batch_size, num_workers
        self.flip, self.seed, self.crop = flip, seed, crop
        self.reading = Reading()

    @abstractmethod
    def setup(self, stage: str) -> None:
        """Sets `train_set`, `val_set` and `test_set`; "predict" may do without."""

    @property
    def is_set_up(self) -> bool:
        """Whether the splits have been read."""
        return self.train_set is not UNREAD

    def sets(self) -> dict[str, ImageSet]:
        """Returns the splits by their names, `SPLITS`."""
        return {"train": self.train_set, "val": self.val_set, "test": self.test_set}

    def split(self, name: str) -> ImageSet:
        """Returns a split, read if need be.

        Raises:
            ValueError: If there is no such split.
        """
        check_choice("data", self.SPLITS, split=name)
        if not self.is_set_up:
            self.prepare_data()
            self.setup("fit")
        return self.sets()[name]

    def train_dataloader(self) -> DataLoader[Batch]:
        """Returns batches without end, by position; with `overfit_batches` the same ones again."""
        trainer: Any = self.trainer
        overfits = trainer is not None and trainer.overfit_batches > 0
        period = (self.batches_per_epoch or 1) * self.positions_per_batch if overfits else None
        positions = Positions(
            lambda: self.position, self.batch_size, *self._rank_and_world, self._epoch, period
        )
        pictures = Shuffled(self.train_set, self.seed, self.flip, self.crop, self.grid)
        return loader(pictures, positions, self.batch_size, self.num_workers)

    @property
    def grid(self) -> int:
        """What the corners of crops are multiples of."""
        return 1

    @property
    def position(self) -> int:
        """The number of positions that training has read: where it resumes."""
        return self.reading.upto(0 if self.trainer is None else self.trainer.global_step)

    @property
    def positions_per_batch(self) -> int:
        """Pictures in a training batch of all processes."""
        return self.batch_size * self._rank_and_world[1]

    @property
    def batches_per_epoch(self) -> int | None:
        """Training batches of an epoch, as the trainer limits it; None without epochs."""
        length = self._epoch
        limit = 1.0 if self.trainer is None else self.trainer.limit_train_batches
        if isinstance(limit, int):
            return limit if length is None else min(limit, length)
        return None if length is None else int(length * limit)

    def state_dict(self) -> dict[str, Any]:
        """Returns the position of training, for a checkpoint."""
        return {"read": self.position}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the position, whatever the size of the batches was."""
        self.reading = Reading(state_dict["read"])

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Counts what is trained on."""
        if self.trainer is not None and self.trainer.training:
            self.reading.take(self.positions_per_batch, self.trainer.global_step)
        return batch

    def val_dataloader(self) -> DataLoader[Batch]:
        """Returns the validation set in order, batch k for process k mod world, or {}."""
        return self._in_order(self.val_set)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Returns the test set in order, batch k for process k mod world, or {}."""
        return self._in_order(self.test_set)

    def batches(self, split: str, batch_size: int = 500, n: int | None = None) -> Iterator[Batch]:
        """Returns a split in order, on the CPU, for metrics; every process gets all of it.

        Args:
            split: "train", "val" or "test".
            batch_size: Pictures in a batch; the last may have fewer.
            n: How many, evenly spaced, so that they are of all classes where a split is sorted by
                them; None for all.

        Returns:
            Batches with "image" (B, C, H, W) in [−1, 1] and "label" (B,), if there are any.

        Raises:
            ValueError: If there is no such split.
        """
        return self._all(self.split(split), batch_size, n)

    def shown(self, batch_size: int = 500) -> Iterator[Tensor]:
        """Yields all that training shows, on the CPU, for metrics that look for copies of it.

        Unlike `batches("train")`, which has each thing once, these are all its versions, and with
        `flip` their mirror images.
        """
        for batch in self._all(self.split("train").each(), batch_size):
            yield batch["image"]
            if self.flip:
                yield batch["image"].flip(-1)

    def _all(self, pictures: ImageSet, batch_size: int, n: int | None = None) -> Iterator[Batch]:
        total = len(pictures)
        batches = spread(total if n is None else n, total, batch_size)
        found = loader(pictures, batches, batch_size, self.num_workers, keep=False)
        return (self.on_after_batch_transfer(batch, 0) for batch in found)

    @property
    def _rank_and_world(self) -> tuple[int, int]:
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    @property
    def _epoch(self) -> int | None:
        return epoch(self.trainer, len(self.train_set), self.positions_per_batch)

    def _in_order(self, pictures: ImageSet) -> DataLoader[Batch]:
        """Deals the batches; all processes get as many, so that none waits for another in vain."""
        rank, world = self._rank_and_world
        batches = in_order(len(pictures), self.batch_size)
        batches += [range(0)] * (-len(batches) % world)
        return loader(OrEmpty(pictures), batches[rank::world], self.batch_size, self.num_workers)
