# pyright: strict
"""The line around what a picture shows."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.data.controls.silhouette import Silhouette


@dataclass(frozen=True)
class Outline(Silhouette):
    """1 on pixels of the `Silhouette` that have background above, below or beside them.

    Unlike edges of the luma it is closed whatever the colours are, and there is nothing inside it.

    Args:
        tolerance: See `Silhouette`.

    Raises:
        ValueError: If it is not between 0 and 1.
    """

    kind = "edges"

    def __call__(self, image: Tensor) -> Tensor:
        """See `Control`."""
        shape = super().__call__(image)
        ground = 1 - shape
        near = torch.maximum(
            F.max_pool2d(ground, (1, 3), 1, (0, 1)), F.max_pool2d(ground, (3, 1), 1, (1, 0))
        )
        return shape * near
