"""Pictures held in memory."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion.data.sets import ImageSet


class Memory(ImageSet):
    """Pictures in one tensor, gathered a batch at a time.

    A picture may have several captions: at its visit v, picture i shows number i + v of them.

    Args:
        images: uint8 (N, C, H, W), or float32 (N, D) for points.
        labels: int64 (N,), or None.
        texts: The captions of each picture, at least one each, or None.

    Raises:
        ValueError: There are not as many labels or captions as images.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        texts: Sequence[Sequence[str]] | None = None,
    ) -> None:
        for key, values in (("labels", labels), ("texts", texts)):
            if values is not None and len(values) != len(images):
                raise ValueError(
                    f"{key}: {len(values)} {key}, expected {len(images)}, one per image"
                )
        self.images = images.contiguous()
        self.labels = labels
        self.texts = texts

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        return self.visit(indices, [0] * len(indices))

    def visit(self, indices: Sequence[int], visits: Sequence[int]) -> dict[str, Any]:
        """Gather pictures, each with the caption whose turn it is."""
        rows = torch.as_tensor(indices)
        return {"image": self.images[rows], **self._known(indices, visits)}

    def conditions(self, indices: Sequence[int]) -> dict[str, Any]:
        """Labels and first captions."""
        return self._known(indices, [0] * len(indices))

    def digest(self) -> bytes:
        """SHA-256 of the images' bytes, and of labels and captions if there are any."""
        digest = hashlib.sha256(self.images.numpy().data)
        if self.labels is not None:
            digest.update(json.dumps(self.labels.tolist()).encode())
        if self.texts is not None:
            digest.update(json.dumps([list(texts) for texts in self.texts]).encode())
        return digest.digest()

    def _known(self, indices: Sequence[int], visits: Sequence[int]) -> dict[str, Any]:
        known = {}
        if self.labels is not None:
            known["label"] = self.labels[torch.as_tensor(indices)]
        if self.texts is not None:
            turns = ((self.texts[i], i + v) for i, v in zip(indices, visits))
            known["text"] = [texts[turn % len(texts)] for texts, turn in turns]
        return known
