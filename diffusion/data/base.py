"""The data module: pictures in, batches out, the same for any number of processes and workers.

Splits are `ImageSet`s. Training reads them by position (`positions.py`), evaluation in order, and
`predict` reads requests (`requests.py`). Pictures stay uint8 until they are on the device.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader

from diffusion.common.pixels import scaled
from diffusion.common.validate import check_choice, check_counts
from diffusion.data.reading.order import Positions, Reading, Shuffled, epoch
from diffusion.data.reading.workers import loader
from diffusion.data.requests.base import Ask, Requests, in_order, spread
from diffusion.data.requests.edits import Edits
from diffusion.data.requests.labels import Labels, apportioned, is_even, requested_classes
from diffusion.data.requests.small_pictures import SmallPictures, shrunk
from diffusion.data.sets import UNREAD, Dealt, ImageSet
from diffusion.spec import DataSpec


class Images(L.LightningDataModule, ABC):
    """Data with the values v = 0 .. levels − 1, trained on as x = 2 v / (levels − 1) − 1.

    A subclass says `shape`, `num_classes` and `levels`, and sets `train_set`, `val_set` and
    `test_set` in `setup`. Training wants a Trainer with `use_distributed_sampler: false`, and best
    `max_steps`, `max_epochs: -1` and `check_val_every_n_epoch: null`. Where epochs are asked for,
    one is a pass over the training set in whole optimizer steps: the few pictures that are left
    come first in the next.

    Args:
        batch_size: Pictures per batch and process.
        num_workers: Processes that read ahead; the batches do not depend on it.
        flip: Mirror half of the training pictures left to right.
        seed: Decides the order of training and the flips, 0 .. 2³² − 1.
        samples: How many samples `predict` draws.
        labels: The classes `predict` asks for in turn, by number or name; None for all of them.
        edit: A picture, or a folder of pictures, that samples continue from; see `Edits`.
        mask: What to repaint of them: a picture that is white there, or "x0,y0,x1,y1".

    Attributes:
        shape: (C, H, W), or (D,) for points.
        num_classes: Number of classes, None without labels.
        classes: Their names, if they have some; a label is a place among them.
        levels: Number of grey levels, None for continuous data.
        ask: The split whose captions are asked for; None where the data has none.
        texts: All captions and prompts, once the data is set up; None where it has none.
        low: What batches have as small pictures, "low_res", or None.
        mentioned: What was left out of the data, a line each.
        done: Called once the weights are in place: the samples `predict` need not draw again.

    Raises:
        ValueError: If a number is out of its range.
    """

    SPLITS: ClassVar = ("train", "val", "test")

    shape: tuple[int, ...]
    num_classes: int | None = None
    classes: Sequence[str] = ()
    levels: int | None = 256
    ask: str | None = None
    texts: list[str] | None = None
    low: SmallPictures | None = None
    train_set: ImageSet = UNREAD
    val_set: ImageSet = UNREAD
    test_set: ImageSet = UNREAD

    def __init__(
        self,
        batch_size: int = 64,
        num_workers: int = 0,
        flip: bool = False,
        seed: int = 0,
        samples: int = 64,
        labels: list[str | int] | None = None,
        edit: str | None = None,
        mask: str | None = None,
    ) -> None:
        super().__init__()
        self.batch_size, self.num_workers = batch_size, num_workers
        self.flip, self.seed, self.samples, self.labels = flip, seed, samples, labels
        self.edit, self.mask = edit, mask
        self.done: Callable[[], set[int]] = set
        self._counts: dict[str, list[int]] = {}
        self.mentioned: list[str] = []
        self.reading = Reading()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # with little to predict
        check_counts("data", batch_size=batch_size)
        check_counts("data", least=0, num_workers=num_workers, samples=samples)
        check_counts("data", least=0, most=2**32 - 1, seed=seed)
        if mask is not None and edit is None:
            raise ValueError(f"data.mask: {mask!r}; expected data.edit too, a picture to repaint")

    @abstractmethod
    def setup(self, stage: str) -> None:
        """Sets `train_set`, `val_set` and `test_set`; "predict" may do without."""

    def sets(self) -> dict[str, ImageSet]:
        """Returns the splits by their names, `SPLITS`."""
        return {"train": self.train_set, "val": self.val_set, "test": self.test_set}

    def mention(self, text: str) -> None:
        """Warns of what is left out of the data, now and in the summary before training."""
        self.mentioned.append(text)
        rank_zero_warn(text)

    @property
    def is_set_up(self) -> bool:
        """Whether the splits have been read."""
        return self.train_set is not UNREAD

    @property
    def spec(self) -> DataSpec:
        """What the data is, as checkpoints keep it; right once `is_known`."""
        captioned = self.ask is not None or self.texts is not None
        kinds = (tuple(self.shape), self.num_classes, tuple(self.classes), self.levels)
        return DataSpec(type(self).__name__, *kinds, captioned)

    @property
    def is_known(self) -> bool:
        """Whether `spec` needs nothing to be read or restored any more."""
        return True

    def restore(self, spec: DataSpec) -> None:
        """Takes the classes from a checkpoint, which samples are asked for by."""
        self.num_classes, self.classes = spec.num_classes, spec.classes

    def remedy(self, spec: DataSpec) -> str:
        """Returns which argument would make this the data that a checkpoint was trained on."""
        return ""

    def asked_classes(self) -> list[int] | None:
        """Returns the numbers of the classes that `predict` asks for in turn, None without classes.

        The data is read if nothing else says what its classes are.

        Raises:
            ValueError: If a label is not one of the data's classes.
        """
        if not self.is_known:
            self.setup("fit")
        return requested_classes(self.labels, self.num_classes, self.classes)

    def train_dataloader(self) -> DataLoader:
        """Returns batches without end, by position; with `overfit_batches` the same ones again."""
        trainer: Any = self.trainer
        length, period = self._epoch(), None
        if trainer is not None and trainer.overfit_batches > 0:
            period = (self.batches_per_epoch or 1) * self.positions_per_batch
        rank_and_world = self._rank_and_world()
        positions = Positions(
            lambda: self.position, self.batch_size, *rank_and_world, length, period
        )
        pictures = Shuffled(self.train_set, self.seed, self.flip)
        return loader(pictures, positions, self.batch_size, self.num_workers)

    @property
    def position(self) -> int:
        """The number of positions that training has read: where it resumes."""
        return self.reading.upto(0 if self.trainer is None else self.trainer.global_step)

    @property
    def positions_per_batch(self) -> int:
        """Pictures in a training batch of all processes."""
        return self.batch_size * self._rank_and_world()[1]

    @property
    def batches_per_epoch(self) -> int | None:
        """Training batches of an epoch, as the trainer limits it; None without epochs."""
        length = self._epoch()
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

    def val_dataloader(self) -> DataLoader:
        """Returns the validation set in order, batch k for process k mod world; see `Dealt`."""
        return self._in_order(self.val_set)

    def test_dataloader(self) -> DataLoader:
        """Returns the test set in order, batch k for process k mod world; see `Dealt`."""
        return self._in_order(self.test_set)

    def predict_dataloader(self) -> Requests:
        """Returns requests for the samples that are not `done`, batch k for process k mod world.

        So the batches are the same for any number of processes.

        Raises:
            ValueError: If a label is not one of the data's classes.
        """
        self.asked_classes()
        (rank, world), done = self._rank_and_world(), self.done()
        batches = in_order(self.samples, self.batch_size)[rank::world]
        return Requests([batch for batch in batches if not done.issuperset(batch)], self.request)

    def described(self) -> list[Ask]:
        """Returns what `request` says of samples: the classes `labels`, in turn."""
        labels = self.asked_classes()
        return [] if labels is None else [Labels(labels)]

    def pictured(self) -> list[Ask]:
        """Returns the pictures that samples start from, which are read once a batch is drawn."""
        return [ask for ask in (self.edits, self.low) if ask is not None]

    def request(self, numbers: Sequence[int]) -> dict[str, Any]:
        """Returns what samples are asked to be: "index", int64 (B,), and what `described` adds.

        Args:
            numbers: The numbers of B samples.
        """
        batch: dict[str, Any] = {"index": torch.tensor(numbers)}
        for ask in self.described():
            batch.update(ask.ask(numbers))
        return batch

    def measured(self, numbers: Sequence[int]) -> dict[str, Any]:
        """Returns what samples that are compared with real pictures are asked to be.

        As `request`, but with the classes as often as `frequencies` has them, so that the samples
        of a perfect model have the distribution of the real pictures.

        Args:
            numbers: The numbers of B samples.
        """
        batch = self.request(numbers)
        if "text" not in batch and (counts := self.frequencies) is not None:
            batch["label"] = torch.tensor(apportioned(counts, numbers))
        return batch

    def asked(self) -> dict[str, Any]:
        """Returns what all samples are asked to be and start from, as digests by argument."""
        asks = (*self.described(), *self.pictured())
        classes = list(self.classes) or self.num_classes
        return {"classes": classes, **{ask.argument: ask.digest() for ask in asks}}

    @cached_property
    def edits(self) -> Edits | None:
        """The pictures that samples continue from, if there are some."""
        return None if self.edit is None else Edits(self.edit, self.mask, self.shape)

    @property
    def frequencies(self) -> list[int] | None:
        """The training pictures of each class, if `measured` samples are to have the same shares.

        None if they have the classes in turn: where `labels` says which, where there are none,
        where there are as many of each as chance would have it (`is_even`), and where samples
        start from small pictures, which were drawn so.
        """
        drawn = self.low is not None and self.low.root is not None
        counts = None if self.labels is not None or drawn else self.class_counts("train")
        return None if counts is None or is_even(counts) else counts

    def class_counts(self, split: str) -> list[int] | None:
        """Returns the number of pictures of each class of a split; None without classes.

        Args:
            split: "train", "val" or "test".
        """
        pictures = self._split(split)
        if self.num_classes is None:
            return None
        if split not in self._counts:
            known = pictures.conditions(range(len(pictures)))
            batches = [known] if "label" in known else self.batches(split)
            labels = torch.cat([batch["label"] for batch in batches])
            self._counts[split] = labels.bincount(minlength=self.num_classes).tolist()
        return self._counts[split]

    def on_after_batch_transfer(self, batch: dict, dataloader_idx: int) -> dict:
        """Normalises pictures where they are now, on the device, and adds small ones if wanted.

        A batch of requests gets the pictures that its samples start from.
        """
        if "image" in batch:
            batch = {**batch, "image": self.normalize(batch["image"])}
            small = {} if self.low is None else {"low_res": shrunk(batch["image"], self.low.size)}
            return {**small, **batch}
        for ask in self.pictured() if batch else ():
            if not batch.keys() & {*ask.keys}:
                index, found = batch["index"], ask.ask(batch["index"].tolist())
                batch = {**batch, **{key: value.to(index.device) for key, value in found.items()}}
        return batch

    def normalize(self, images: Tensor) -> Tensor:
        """Returns x = 2 v / (levels − 1) − 1.

        Args:
            images: uint8 of any shape, values 0 .. levels − 1; floats are points.

        Returns:
            float32 in [−1, 1], the ends exact; points unchanged.
        """
        if self.levels is None or images.dtype != torch.uint8:
            return images
        return scaled(images, self.levels)

    def batches(
        self, split: str, batch_size: int = 500, n: int | None = None
    ) -> Iterator[dict[str, Tensor]]:
        """Returns a split in order, on the CPU, for metrics; every process gets all of it.

        Args:
            split: "train", "val" or "test".
            batch_size: Pictures in a batch; the last may have fewer.
            n: How many, evenly spaced, so that they are of all classes where a split is sorted by
                them; None for all.

        Returns:
            Batches with "image" as `normalize` returns it and "label" (B,), if there are any.

        Raises:
            ValueError: If there is no such split.
        """
        return self._all(self._split(split), batch_size, n)

    def shown(self, batch_size: int = 500) -> Iterator[Tensor]:
        """Yields all that training shows, on the CPU, for metrics that look for copies of it.

        Unlike `batches("train")`, which has each thing once, these are all its versions, and with
        `flip` their mirror images.

        Args:
            batch_size: Pictures in a batch; the last may have fewer.
        """
        for batch in self._all(self._split("train").each(), batch_size):
            yield batch["image"]
            if self.flip:
                yield batch["image"].flip(-1)

    def fingerprint(self, split: str) -> str:
        """Returns 16 hexadecimal digits that change when a picture of a split does.

        Args:
            split: "train", "val" or "test".

        Raises:
            ValueError: If there is no such split.
        """
        pictures = self._split(split)
        settings = f"{type(self).__name__} {self.shape} {self.levels} {len(pictures)} "
        return hashlib.sha256(settings.encode() + pictures.digest()).hexdigest()[:16]

    def _all(
        self, pictures: ImageSet, batch_size: int, n: int | None = None
    ) -> Iterator[dict[str, Tensor]]:
        total = len(pictures)
        batches = spread(total if n is None else n, total, batch_size)
        found = loader(pictures, batches, batch_size, self.num_workers, keep=False)
        return (self.on_after_batch_transfer(batch, 0) for batch in found)

    def _split(self, split: str) -> ImageSet:
        check_choice("data", self.SPLITS, split=split)
        if not self.is_set_up:
            self.prepare_data()
            self.setup("fit")
        return self.sets()[split]

    def _rank_and_world(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def _epoch(self) -> int | None:
        return epoch(self.trainer, len(self.train_set), self.positions_per_batch)

    def _in_order(self, pictures: ImageSet) -> DataLoader:
        """Deals the batches; all processes get as many, so that none waits for another in vain."""
        rank, world = self._rank_and_world()
        batches = in_order(len(pictures), self.batch_size)
        batches += [range(0)] * (-len(batches) % world)
        mine = batches[rank::world]
        return loader(Dealt(pictures), mine, self.batch_size, self.num_workers)
