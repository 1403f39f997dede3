"""Small versions of pictures, for networks that upsample."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.common.hashing import bytes_digest, file_digest
from diffusion.common.pixels import scaled
from diffusion.data.reading.decoding import read_picture
from diffusion.data.reading.listing import list_pictures
from diffusion.data.requests.base import Ask
from diffusion.data.requests.prompts import Captions


class SmallPictures(Ask):
    """Samples start from pictures that another model drew: "low_res", in [−1, 1].

    Sample i starts from `000042_3.png`, index and label, as `diffusion predict` writes them, or
    from `000042.png`.

    Args:
        size: Height and width of the small pictures, a divisor of the pictures' own.
        root: The folder of small pictures, or None if nothing is to be drawn from them.
        shape: (C, H, W) of the pictures.

    Raises:
        ValueError: If the sizes do not divide.
        FileNotFoundError: If there is no such folder.
    """

    argument, keys = "low_root", ("low_res",)

    def __init__(self, size: int, root: str | None, shape: tuple[int, ...]) -> None:
        self.size, self.channels = size, shape[0]
        if not 0 < size <= shape[-1] or shape[-1] % size:
            raise ValueError(f"data.low_size: {size}; expected a divisor of size {shape[-1]}")
        self.root = None if root is None else Path(root).expanduser()
        names = [] if self.root is None else list_pictures(self.root, "data.low_root").names
        numbers = ((Path(name).stem.split("_")[0], name) for name in names)
        self.names = {int(number): name for number, name in numbers if number.isdigit()}

    def ask(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Returns the small pictures of these numbers, float32 (B, C, size, size).

        Raises:
            ValueError: If there is no folder of them, or no picture of a number.
        """
        if self.root is None:
            raise ValueError(
                "data.low_root: null; expected a folder of small pictures that another model drew"
            )
        if missing := [i for i in numbers if i not in self.names]:
            raise ValueError(
                f"data.low_root: {self.root}; expected a picture for every sample, such as "
                f"{missing[0]:06d}_0.png, it has none of number {missing[0]}"
            )
        read = [read_picture(self.root / self.names[i], self.size, self.channels) for i in numbers]
        return {"low_res": scaled(torch.stack(read))}

    def digest(self) -> str:
        """Returns the size, and 16 digits that change with the files."""
        if self.root is None:
            return f"{self.size}"
        named = [
            f"{name}\0".encode() + file_digest(self.root / name) for name in self.names.values()
        ]
        return f"{self.size} {bytes_digest(*named)}"


@dataclass
class Shrunk(Ask):
    """Samples start from the pictures whose captions they have, shrunk: "low_res", in [−1, 1].

    Args:
        captions: Which pictures these are.
        size: Height and width of the small pictures.
        normalize: From bytes to [−1, 1].
    """

    argument, keys = "low_size", ("low_res",)

    captions: Captions
    size: int
    normalize: Callable[[Tensor], Tensor]

    def ask(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Returns the small pictures, float32 (B, C, size, size)."""
        pictures = self.captions.pictures.__getitems__(self.captions.rows(numbers))
        return {"low_res": area_means(self.normalize(pictures["image"]), self.size)}

    def digest(self) -> str:
        """Returns the size, and 16 digits that change with the pictures."""
        return f"{self.size} {self.captions.pictures.digest().hex()[:16]}"


def area_means(images: Tensor, size: int) -> Tensor:
    """Returns the means of equal squares, as ADM's training does: (B, C, size, size)."""
    return F.interpolate(images, (size, size), mode="area")
