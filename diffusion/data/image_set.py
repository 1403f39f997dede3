"""What a split is: pictures that are read a whole batch at a time."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset


class ImageSet(Dataset, ABC):
    """Numbered pictures, with a class each or none."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of pictures."""

    @abstractmethod
    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Read pictures as one batch.

        Args:
            indices: B numbers in 0 .. len − 1.

        Returns:
            "image": uint8 (B, C, H, W), or float32 (B, D) for points; "label": int64 (B,), if any.
        """

    @abstractmethod
    def digest(self) -> bytes:
        """Hash of what decides the pixels: changes whenever a picture does."""


def as_is(batch: Any) -> Any:
    """Collate nothing: sets hand over whole batches."""
    return batch
