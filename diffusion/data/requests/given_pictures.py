"""Pictures that are given by hand, and those that samples are to be like."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from diffusion.common.hashing import bytes_digest, file_digest
from diffusion.common.pixels import scaled
from diffusion.data.reading.decoding import read_picture
from diffusion.data.reading.listing import list_pictures
from diffusion.data.requests.base import Ask
from diffusion.data.requests.controlled import Controlled

T = TypeVar("T")


class GivenPictures(Ask):
    """Sample i has picture i mod N: the first of `keys`, float32 (B, C, H, W) in [−1, 1].

    Pictures are read as `ImageFolder` reads them: the shorter side resized, the centre cropped.

    Args:
        given: A picture, or a folder of N pictures, which are taken in the order of their names.
        shape: (C, H, W) of the data.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the data is not square.
    """

    def __init__(self, given: str, shape: Sequence[int]) -> None:
        key = f"data.{self.argument}"
        if len(shape) != 3 or shape[1] != shape[2]:
            raise ValueError(f"{key}: {given!r}; expected null, as the data is not square")
        self.shape, path = tuple(shape), Path(given).expanduser()
        names = list_pictures(path, key).names if path.is_dir() else [""]
        self.pictures = [path / name for name in names]

    def ask(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Returns the pictures of the samples of these numbers."""
        places, (channels, size, _) = [i % len(self.pictures) for i in numbers], self.shape
        read = {
            i: try_read(read_picture, self.argument, self.pictures[i], size, channels)
            for i in {*places}
        }
        return {self.keys[0]: scaled(torch.stack([read[i] for i in places]))}

    def digest(self) -> str:
        """Returns 16 digits that change when a pixel does."""
        return bytes_digest(*map(file_digest, self.pictures))


class ImagePrompts(GivenPictures):
    """Samples are to be like pictures given by hand: variations of them."""

    argument: ClassVar[str] = "image_prompt"
    keys = ("image_prompt",)


class OwnPictures(Controlled):
    """Samples are to be like the pictures whose captions or classes they have."""

    argument: ClassVar[str] = "image_prompt"


def try_read(read: Callable[..., T], key: str, path: Path, *arguments: int) -> T:
    """Returns what is read of a picture; errors name it and the key that it is of."""
    if not path.is_file():
        other = "box such as 2,2,6,6" if key == "mask" else "folder of pictures"
        raise FileNotFoundError(
            f"data.{key}: {path}; expected a picture or a {other}, there is no such file"
        )
    try:
        return read(path, *arguments)
    except ValueError as error:
        raise ValueError(f"data.{key}: {path}; expected a picture ({error})") from error
