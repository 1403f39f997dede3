"""What a split is: pictures that are read a whole batch at a time."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset


class ImageSet(Dataset, ABC):
    """Numbered pictures, with a class and a caption each or without."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of pictures."""

    @abstractmethod
    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        """Read pictures as one batch.

        Args:
            indices: B numbers in 0 .. len − 1.

        Returns:
            "image": uint8 (B, C, H, W), or float32 (B, D) for points; "label": int64 (B,), if any;
            "text": list of B captions, if any.
        """

    def visit(self, indices: Sequence[int], visits: Sequence[int]) -> dict[str, Any]:
        """Read pictures as training does; what has several versions shows them in turn.

        Args:
            indices: As for `__getitems__`, which is what all see at visit 0.
            visits: For each, how often it was read before: its epoch.
        """
        return self.__getitems__(indices)

    def each(self) -> "ImageSet":
        """Every picture by itself: of what has several versions, all of them."""
        return self

    def conditions(self, indices: Sequence[int]) -> dict[str, Any]:
        """What `__getitems__` returns besides the pictures, which need not be read."""
        return {}

    @abstractmethod
    def digest(self) -> bytes:
        """Hash of what decides the batches: changes whenever a picture or a caption does."""


class Dealt(Dataset):
    """A set whose batches are dealt to processes: who has one batch less gets an empty one, {}.

    Args:
        pictures: The set.
    """

    def __init__(self, pictures: ImageSet) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        return self.pictures.__getitems__(indices) if len(indices) else {}


def as_is(batch: Any) -> Any:
    """Collate nothing: sets hand over whole batches."""
    return batch
