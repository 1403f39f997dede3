"""Pictures that are given by hand, and those that samples are to be like."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from diffusion.common.hashing import bytes_digest, file_digest
from diffusion.common.pixels import scaled
from diffusion.data.reading.decoding import read_picture, upright_size
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
        ValueError: If the data is not square, or a file is no picture.
    """

    def __init__(self, given: str, shape: Sequence[int]) -> None:
        self.key, self.shape = f"data.{self.argument}", tuple(shape)
        check_square(self.key, given, shape)
        self.pictures = listed(Path(given).expanduser(), self.key)
        self.sizes = [try_read(upright_size, self.key, path) for path in self.pictures]

    def ask(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Returns the pictures of the samples of these numbers."""
        places, (channels, size, _) = [i % len(self.pictures) for i in numbers], self.shape
        read = {
            i: try_read(read_picture, self.key, self.pictures[i], size, channels) for i in {*places}
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


def check_square(key: str, given: object, shape: Sequence[int]) -> None:
    """Refuses pictures for data that has none, or none that are square."""
    if len(shape) != 3 or shape[1] != shape[2]:
        raise ValueError(f"{key}: {given!r}; expected null, as the data is not square")


def listed(path: Path, key: str) -> list[Path]:
    """Returns a picture, or those of a folder in the order of their names."""
    names = list_pictures(path, key).names if path.is_dir() else [""]
    return [path / name for name in names]


def try_read(
    read: Callable[..., T],
    key: str,
    path: Path,
    *arguments: int,
    other: str = "a folder of pictures",
) -> T:
    """Returns what is read of a picture.

    Args:
        read: Called with the path and the arguments.
        key: What errors call it.
        path: The picture.
        *arguments: Of `read`.
        other: What it might have been, "" for nothing.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read.
    """
    if not path.is_file():
        wanted = f"a picture or {other}" if other else "a picture"
        raise FileNotFoundError(f"{key}: {path}; expected {wanted}, there is no such file")
    try:
        return read(path, *arguments)
    except ValueError as error:
        raise ValueError(f"{key}: {path}; expected a picture ({error})") from error
