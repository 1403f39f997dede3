"""Five points of a face that are given by hand: in a file, or in a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.common.alignment import Finder
from diffusion.common.hashing import bytes_digest
from diffusion.data.controls.beside import shares
from diffusion.data.identities.key_points import key_points
from diffusion.data.reading.decoding import read_picture
from diffusion.data.requests.base import Ask
from diffusion.data.requests.given_pictures import check_square, listed, try_read

KEY, POINTS = "data.pose", ".txt"
SIDE = 512  # at which a picture's face is looked for
LINES = (
    "five lines x y, shares of the side, of the left eye, the right eye, the nose, and the left "
    "and right corner of the mouth"
)


class GivenPoses(Ask):
    """Sample i has the five points i mod N, drawn by `key_points`: float32 (B, 3, H, W) in [0, 1].

    Args:
        points: Shares of the side, (N, 5, 2).
        names: The controls that are the points.
        shape: (C, H, W) of the data.

    Raises:
        ValueError: If nothing reads points, or the data is not square.
    """

    argument: ClassVar[str] = "pose"

    def __init__(self, points: Tensor, names: Sequence[str], shape: Sequence[int]) -> None:
        check_square(KEY, "five points", shape)
        if not names:
            raise ValueError(f"{KEY}: five points; expected null, as nothing reads key points")
        self.points, self.keys, self.size = points, tuple(names), shape[1]

    def ask(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Returns the pictures of these numbers' points."""
        points = self.points[[i % len(self.points) for i in numbers]]
        drawn = shares(key_points(self.size * points, self.size))
        return dict.fromkeys(self.keys, drawn)

    def digest(self) -> str:
        """Returns 16 digits that change with the points."""
        return bytes_digest(self.points.numpy().tobytes())


def given_points(pose: str, finder: Finder | None) -> Tensor:
    """Returns the points of a text or a picture, or of a folder of texts, (N, 5, 2).

    Points come from a text of five lines "x y", shares of a square picture's side from its upper
    left corner, of what is on the left in the picture first. A picture stands for the text of its
    name beside it (other.txt for other.png), or else for the points of the one face that is found
    in it, once it is cropped to its middle square.

    Args:
        pose: The file or folder.
        finder: What finds faces; None for nothing.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file is neither, or there is not one face in a picture.
    """
    path = Path(pose).expanduser()
    files = sorted(path.glob(f"*{POINTS}")) if path.is_dir() else [path]
    return torch.stack([points_of(file, finder) for file in files or listed(path, KEY)])


def points_of(file: Path, finder: Finder | None, key: str = KEY) -> Tensor:
    """Returns the five points of a text, of a picture with a text beside it, or found in one.

    Args:
        file: The text, or the picture.
        finder: What finds faces; None for nothing.
        key: What errors call it.

    Returns:
        Shares of the middle square's side, float32 (5, 2).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds something else, or not one face is found.
    """
    text = file.with_suffix(POINTS)
    if text.is_file():
        return read_points(text, key)
    picture = try_read(read_picture, key, file, SIDE, 3, other=f"a text of {LINES}")
    if finder is None:
        raise ValueError(
            f"{key}: {file}; expected {text.name} beside it, {LINES}; or data.finder, such as "
            "FaceFinder for photographs, which misses many drawn faces"
        )
    if len(faces := finder(picture)) != 1:
        count = "no face" if not faces else f"{len(faces)} faces"
        raise ValueError(
            f"{key}: {file}; expected one face, seen from the front, {count} found; or "
            f"{text.name} beside it, {LINES}"
        )
    return faces[0].points.float() / SIDE


def read_points(file: Path, key: str = KEY) -> Tensor:
    """Returns the points of a text, (5, 2).

    Raises:
        ValueError: If it holds something else.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        found = [[float(word) for word in line.split()] for line in lines if line.strip()]
    except (UnicodeDecodeError, ValueError):
        found = []
    if len(found) != 5 or any(len(line) != 2 for line in found):
        raise ValueError(f"{key}: {file}; expected {LINES}")
    points = torch.tensor(found)
    if not ((points > -0.5) & (points < 1.5)).all():
        raise ValueError(f"{key}: {file}; expected {LINES}: 0 … 1, not pixels")
    return points
