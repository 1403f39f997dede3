# pyright: strict
"""Where a picture is not its background."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.common.pixels import ground
from diffusion.data.controls.base import Control, in_colour, reached


@dataclass(frozen=True)
class Silhouette(Control):
    """1 where a picture is not background, 0 elsewhere.

    The ground's colour is the border pixels' median in each channel. Background is what pixels of
    that colour connect to the border, side by side: white insides of a drawing on white are not,
    and an outline of one pixel keeps them apart also where it runs diagonally.

    Args:
        tolerance: By how much a channel of [0, 1] may differ from the ground's.

    Raises:
        ValueError: If it is not between 0 and 1.
    """

    kind = "regions"
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance <= 1:
            raise ValueError(f"data.controls.tolerance: {self.tolerance}; expected 0 … 1")

    def __call__(self, image: Tensor) -> Tensor:
        """See `Control`."""
        x = in_colour(image)
        edge = torch.zeros(x.shape[2:], dtype=torch.bool, device=x.device)
        edge[[0, -1], :] = True
        edge[:, [0, -1]] = True
        like = ((x - ground(x)[..., None, None]).abs() <= self.tolerance).all(1, keepdim=True)
        return 1 - reached(edge.expand_as(like), like, corners=False).to(image.dtype)
