"""Small versions of pictures, for networks that upsample."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.data.reading.decoding import read_picture
from diffusion.data.reading.listing import picture_names
from diffusion.data.sets import ImageSet


class LowResolution:
    """What adds "low_res", (B, C, low_size, low_size) in [−1, 1], to a batch.

    Where there is a picture it is shrunk by averaging squares, as ADM's training does. Samples are
    drawn from small pictures, which another model drew: sample i from `000042_3.png`, index and
    label, as `diffusion predict` writes them, or from `000042.png`.

    Args:
        low_size: Height and width of the small pictures, a divisor of the pictures' own.
        low_root: The folder of small pictures, or None if nothing is to be drawn from them.
        shape: (C, H, W) of the pictures.

    Raises:
        ValueError: The sizes do not divide.
    """

    def __init__(self, low_size: int, low_root: str | None, shape: tuple[int, ...]) -> None:
        self.channels, size = shape[0], shape[-1]
        if not 0 < low_size <= size or size % low_size:
            raise ValueError(f"low_size: {low_size}, expected a divisor of size {size}")
        self.size, self.root = low_size, low_root
        self.small: dict[int, str] | None = None

    def check(self) -> None:
        """Look for the folder of small pictures, before anything is trained.

        Raises:
            FileNotFoundError: There is no such folder.
        """
        if self.root is not None and not Path(self.root).expanduser().is_dir():
            raise FileNotFoundError(
                f"data.low_root: {self.root!r} is no folder, expected one with small pictures"
            )

    def asked(self) -> dict[str, Any]:
        """Say what samples are drawn from: the size, and 16 digits that change with the files."""
        if self.root is None:
            return {"low_size": self.size, "low_root": None}
        root, digest = Path(self.root).expanduser(), hashlib.sha256()
        for name in picture_names(root):
            digest.update(
                f"{name}\0".encode() + hashlib.sha256((root / name).read_bytes()).digest()
            )
        return {"low_size": self.size, "low_root": digest.hexdigest()[:16]}

    def shrunk(self, images: Tensor) -> Tensor:
        """Average squares: (B, C, H, W) to (B, C, low_size, low_size), floats."""
        return F.interpolate(images, (self.size, self.size), mode="area")

    def added(self, batch: dict[str, Any], normalize: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """Give the batch with its small pictures.

        Args:
            batch: With "image", in [−1, 1], with "index", or with "low_res", which then stays.
            normalize: From uint8 to [−1, 1].
        """
        if "low_res" in batch or not batch:
            return batch
        if "image" in batch:
            return {**batch, "low_res": self.shrunk(batch["image"])}
        drawn = normalize(self.drawn(batch["index"].tolist()))
        return {**batch, "low_res": drawn.to(batch["index"].device)}

    def known(
        self, pictures: ImageSet, rows: Sequence[int], normalize: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """Give "low_res" of pictures that there are, or nothing if it has to be drawn.

        Args:
            pictures: Where they are.
            rows: Which of them.
            normalize: From uint8 to [−1, 1].
        """
        if self.root is not None:
            return {}
        return {"low_res": self.shrunk(normalize(pictures.__getitems__(rows)["image"]))}

    def drawn(self, numbers: Sequence[int]) -> Tensor:
        """Read the small pictures of these numbers, uint8.

        Raises:
            ValueError: There is no folder of them, or no picture of a number.
        """
        if self.root is None:
            raise ValueError(
                "data.low_root: null, expected a folder of small pictures that another model drew"
            )
        root = Path(self.root).expanduser()
        if self.small is None:
            self.small = {int(Path(x).stem.split("_")[0]): x for x in picture_names(root)}
        if missing := [i for i in numbers if i not in self.small]:
            raise ValueError(
                f"data.low_root: {str(root)!r} has no picture of number {missing[0]}, expected "
                f"names such as {missing[0]:06d}_0.png, one for every sample"
            )
        read = [read_picture(root / self.small[i], self.size, self.channels) for i in numbers]
        return torch.stack(read)
