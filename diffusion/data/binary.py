"""Data of bits, with which the first diffusion model was tried too."""

from typing import Any

import torch
from torch import Tensor

from diffusion.common.validate import check_counts
from diffusion.data.base import Images
from diffusion.data.digits import Digits
from diffusion.data.sets import Memory


class BinaryDigits(Digits):
    """`Digits` with two grey levels: a pixel is 1 where it has at least grey `threshold` of 0 … 16.

    Args:
        threshold: 1 … 16.
        **kwargs: As for `Images`.

    Raises:
        ValueError: If the threshold leaves no two levels.
    """

    levels = 2

    def __init__(self, threshold: int = 8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 1 <= threshold <= 16:
            raise ValueError(f"data.threshold: {threshold}; expected 1 … 16")
        self.threshold = threshold

    def setup(self, stage: str) -> None:
        """Reads, splits and thresholds the digits."""
        if self.is_set_up or stage == "predict":
            return
        super().setup(stage)
        self.train_set, self.test_set = map(self._bits, (self.train_set, self.test_set))
        self.val_set = self.test_set

    def _bits(self, digits: Any) -> Memory:
        return Memory((digits.images >= self.threshold).byte(), digits.labels)


class Heartbeat(Images):
    """Sequences of 20 bits with a 1 in every fifth place, the first in one of five, evenly.

    The data of Sohl-Dickstein et al. (2015), section 3.1.2, whose entropy is log₂ 5 = 2.32 bits a
    sequence. As pictures of one row, (1, 1, 20); all splits are the same sequences in turn.

    Args:
        sequences: Sequences in each split, a multiple of five.
        batch_size: Sequences per batch and process.
        num_workers: Processes that read ahead.
        seed: Decides the order of training.
        samples: How many samples `predict` draws.

    Raises:
        ValueError: If some places come first more often than others.
    """

    shape = (1, 1, 20)
    levels = 2
    period = 5

    def __init__(
        self,
        sequences: int = 1000,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        samples: int = 64,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed, samples=samples)
        check_counts("data", sequences=sequences)
        if sequences % self.period:
            raise ValueError(f"data.sequences: {sequences}; expected a multiple of {self.period}")
        self.sequences = sequences

    def setup(self, stage: str) -> None:
        """Makes the sequences."""
        first = torch.arange(self.sequences)[:, None] % self.period
        beats = torch.arange(self.shape[-1]) % self.period == first
        images: Tensor = beats.byte().view(-1, *self.shape)
        self.train_set = self.val_set = self.test_set = Memory(images)
