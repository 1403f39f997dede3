"""Five points of a face as a picture: InstantID's control (Wang et al. 2024, arXiv 2401.07519)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.data.controls.beside import Beside

# Of the left eye, the right eye, the nose, and the left and right corner of the mouth: what is on
# the left in the picture comes first.
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255))
NOSE, OTHERS = 2, (0, 1, 3, 4)
DIMMED = 0.6  # lines beside points
RADIUS, WIDTH = 1 / 32, 1 / 80  # of points, and half the width of lines, as shares of the picture


@dataclass
class KeyPoints(Beside):
    """Five coloured points of the face, each joined to the nose by a line of its colour, on black.

    As InstantID draws them, whose points have a radius of 10 in 1024 pixels; here it is a 32nd of
    the picture, so that they are seen at 64. A pixel has a colour's share by its distance.
    """

    channels: int = 3

    def __post_init__(self) -> None:
        if self.channels != 3:
            raise ValueError(f"data.controls.channels: {self.channels}; expected 3")


def key_points(landmarks: Tensor, size: int) -> Tensor:
    """Returns pictures of five points, uint8 (B, 3, size, size).

    Args:
        landmarks: x and y in pixels from the upper left corner, (B, 5, 2).
        size: Height and width.
    """
    places = torch.arange(size, dtype=landmarks.dtype, device=landmarks.device) + 0.5
    y, x = torch.meshgrid(places, places, indexing="ij")
    pixels, points = torch.stack([x, y], -1), landmarks[:, :, None, None]  # (B, 5, 1, 1, 2)
    picture = torch.zeros(len(landmarks), 3, size, size, device=landmarks.device)
    colours = torch.tensor(COLOURS, dtype=picture.dtype, device=landmarks.device)
    nose = points[:, NOSE]
    for i in OTHERS:
        way = points[:, i] - nose
        along = ((pixels - nose) * way).sum(-1) / way.square().sum(-1).clamp(min=1e-6)
        far = (pixels - nose - along.clamp(0, 1)[..., None] * way).norm(dim=-1)
        picture = _laid(picture, far, WIDTH * size, DIMMED * colours[i])
    for i, colour in enumerate(colours):
        picture = _laid(picture, (pixels - points[:, i]).norm(dim=-1), RADIUS * size, colour)
    return picture.round().byte()


def _laid(picture: Tensor, far: Tensor, radius: float, colour: Tensor) -> Tensor:
    """Lays a colour over pictures inside a radius, whose edge is one pixel wide."""
    share = (radius + 0.5 - far).clamp(0, 1)[:, None]
    return picture + share * (colour[:, None, None] - picture)
