"""Pictures held in memory."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from .image_set import ImageSet


class Memory(ImageSet):
    """Pictures in one tensor, gathered a batch at a time.

    Args:
        images: uint8 (N, C, H, W), or float32 (N, D) for points.
        labels: int64 (N,), or None.

    Raises:
        ValueError: There are not as many labels as images.
    """

    def __init__(self, images: Tensor, labels: Tensor | None = None) -> None:
        if labels is not None and len(labels) != len(images):
            raise ValueError(f"labels: {len(labels)} labels, expected {len(images)}, one per image")
        self.images = images.contiguous()
        self.labels = labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        rows = torch.as_tensor(indices)
        batch = {"image": self.images[rows]}
        if self.labels is not None:
            batch["label"] = self.labels[rows]
        return batch

    def digest(self) -> bytes:
        """SHA-256 of the images' bytes."""
        return hashlib.sha256(self.images.numpy().data).digest()
