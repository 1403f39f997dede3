# pyright: strict
"""What a control is: a function of a picture."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601, as Pillow makes pictures grey


class Control(ABC):
    """image ↦ control in [0, 1], of the image's size; the same in training, testing and drawing.

    Subclasses are dataclasses: what they are made with is in their `repr`, which is part of what
    samples were asked to be.

    Attributes:
        channels: c of the control.
        kind: What is compared of two of them: thin lines, areas, or any values; None for nothing.
    """

    channels: int = 1
    kind: ClassVar[Literal["edges", "regions", "values"] | None] = "values"

    @abstractmethod
    def __call__(self, image: Tensor) -> Tensor:
        """Returns the controls (B, c, H, W) in [0, 1] of images (B, C, H, W) in [−1, 1]."""


def check_control(name: str, control: Control, shape: Sequence[int]) -> None:
    """Refuses a control that is no picture in [0, 1], judged by those of black and of a ramp.

    So nothing has to be looked at, and waited for, while a network is trained.

    Args:
        name: Of the condition.
        control: The control.
        shape: (C, H, W) of the images.

    Raises:
        ValueError: If its shape is another, or a value is NaN or outside [0, 1].
    """
    if control.kind is None:  # comes with pictures, as bytes; see `Beside`
        return
    ramp = torch.linspace(-1, 1, math.prod(shape)).view(*shape)
    found = control(torch.stack([torch.full_like(ramp, -1), ramp]))
    if found.shape != (wanted := (2, control.channels, *shape[1:])):
        raise ValueError(f"data.controls.{name}: {tuple(found.shape)}; expected {wanted}")
    low, high = found.aminmax()
    if not (low >= 0 and high <= 1):
        raise ValueError(f"data.controls.{name}: {low:g} … {high:g}; expected values in [0, 1]")


def in_colour(image: Tensor) -> Tensor:
    """Returns (x + 1) / 2 of images x (B, 1 or 3, H, W), grey ones repeated, (B, 3, H, W)."""
    return ((image + 1) / 2).expand(-1, 3, -1, -1)


def luma(image: Tensor) -> Tensor:
    """Returns the luma of images (B, 1 or 3, H, W) in [−1, 1], (B, 1, H, W) in [0, 1]."""
    if image.shape[1] == 1:
        return (image + 1) / 2
    weights = torch.tensor(LUMA, dtype=image.dtype, device=image.device)
    return torch.einsum("bchw,c->bhw", (image + 1) / 2, weights)[:, None]


def block_means(image: Tensor, n: int) -> Tensor:
    """Returns the mean colours of squares of n pixels, (B, 3, H / n, W / n) in [0, 1].

    Raises:
        ValueError: If n does not divide H and W.
    """
    height, width = image.shape[2:]
    if height % n or width % n:
        raise ValueError(f"data.controls: {n}; expected a divisor of {height} and {width}")
    return F.avg_pool2d(in_colour(image), n)


def reached(start: Tensor, where: Tensor, corners: bool) -> Tensor:
    """Returns what is connected to some pixels inside a region, by at most H + W steps.

    A way that winds longer than that is cut, so that nothing waits for a device.

    Args:
        start: bool (B, 1, H, W).
        where: The region, bool (B, 1, H, W).
        corners: Whether pixels that meet at a corner are connected too.
    """
    inside = where.float()
    found = (start & where).float()
    for _ in range(sum(where.shape[2:])):
        if corners:
            wider = F.max_pool2d(found, 3, 1, 1)
        else:
            across = F.max_pool2d(found, (1, 3), 1, (0, 1))
            wider = torch.maximum(across, F.max_pool2d(found, (3, 1), 1, (1, 0)))
        found = wider * inside
    return found > 0
