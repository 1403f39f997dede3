"""Data whose pictures are of known persons."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from diffusion.data.base import Images
from diffusion.data.identities.another import WithAnother
from diffusion.data.identities.key_points import KeyPoints
from diffusion.spec import Batch


class Identities(Images):
    """Pictures of persons, none of whom is in two splits unless a split's name says so.

    Batches have "person", a number, and "identity", another picture of the same person, in [−1, 1],
    (B, C, H, W): see `WithAnother`.

    Args:
        **kwargs: As for `Images`.

    Raises:
        ValueError: If pictures with landmarks are to be mirrored.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.flip and self.has_beside is KeyPoints:
            raise ValueError(
                f"data.flip: true; expected false, as {type(self).__name__} has landmarks, whose "
                "left would be right"
            )

    @property
    def num_persons(self) -> int:
        """How many there are to train on: their numbers are 0 … num_persons − 1."""
        pictures = self.split("train")
        assert isinstance(pictures, WithAnother)
        return len(pictures.groups)

    def swapped(self, split: str, sources: Sequence[int], targets: Sequence[int]) -> Tensor | None:
        """Returns the exact truth of swaps, (B, C, H, W) in [−1, 1], where the data knows it.

        Args:
            split: Which split the pictures are of.
            sources: Numbers of B pictures there: whose person it is.
            targets: And whose look.
        """
        return None

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """See `Images`; "identity" is scaled like "image"."""
        found = super().on_after_batch_transfer(batch, dataloader_idx)
        if isinstance(other := found.get("identity"), Tensor):
            return {**found, "identity": self.normalize(other)}
        return found
