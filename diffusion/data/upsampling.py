"""Pictures and small versions of them, for networks that upsample."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .image_folder import ImageFolder, picture_names
from .picture import read_picture


class Upsampling(ImageFolder):
    """An `ImageFolder` whose batches also have "low_res", (B, C, low_size, low_size) in [−1, 1].

    Where there is a picture it is shrunk by averaging squares, as ADM's training does. Samples are
    drawn from small pictures, which another model drew: sample i with its label from
    `000042_3.png`, index and label, as `diffusion predict` writes them.

    Args:
        low_size: Height and width of the small pictures, a divisor of `size`.
        low_root: The folder of small pictures, or None if nothing is to be drawn.
        **kwargs: As for `ImageFolder`.

    Raises:
        ValueError: The sizes do not divide.
        FileNotFoundError: In `setup`, `low_root` is no folder.
    """

    def __init__(self, low_size: int, low_root: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        size = self.shape[-1]
        if not 0 < low_size <= size or size % low_size:
            raise ValueError(f"low_size: {low_size}, expected a divisor of size {size}")
        self.low_size, self.low_root = low_size, low_root
        self.small: dict[int, str] | None = None

    def setup(self, stage: str) -> None:
        """Look at the folder of small pictures too, before anything is trained."""
        super().setup(stage)
        if self.low_root is not None and not Path(self.low_root).expanduser().is_dir():
            raise FileNotFoundError(
                f"data.low_root: {self.low_root!r} is no folder, expected one with small pictures"
            )

    def on_after_batch_transfer(self, batch: dict, dataloader_idx: int) -> dict:
        """Add the small pictures."""
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        if "image" in batch:
            side = (self.low_size, self.low_size)
            return {**batch, "low_res": F.interpolate(batch["image"], side, mode="area")}
        return {**batch, "low_res": self.drawn(batch["index"].tolist()).to(batch["index"].device)}

    def drawn(self, numbers: Sequence[int]) -> Tensor:
        """Give the small pictures of these numbers, as `normalize` returns them.

        Raises:
            ValueError: There is no folder of them, or no picture of a number.
        """
        if self.low_root is None:
            raise ValueError(
                "data.low_root: null, expected a folder of small pictures that another model drew"
            )
        root = Path(self.low_root).expanduser()
        if self.small is None:
            self.small = {int(Path(x).stem.split("_")[0]): x for x in picture_names(root)}
        if missing := [i for i in numbers if i not in self.small]:
            raise ValueError(
                f"data.low_root: {str(root)!r} has no picture of number {missing[0]}, expected "
                f"names such as {missing[0]:06d}_0.png, one for every sample"
            )
        read = [read_picture(root / self.small[i], self.low_size, self.shape[0]) for i in numbers]
        return self.normalize(torch.stack(read))
