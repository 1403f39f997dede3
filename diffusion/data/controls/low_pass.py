# pyright: strict
"""The colours of a picture without its details."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from diffusion.common.validate import check_counts
from diffusion.data.controls.base import Control, block_means


@dataclass(frozen=True)
class LowPass(Control):
    """Means of squares of `factor` pixels, enlarged bilinearly, half pixels at the edges.

    Args:
        factor: Side of a square, a divisor of H and W.

    Raises:
        ValueError: If it is below 1.
    """

    channels = 3

    factor: int = 4

    def __post_init__(self) -> None:
        check_counts("data.controls", factor=self.factor)

    def __call__(self, image: Tensor) -> Tensor:
        """See `Control`."""
        small = block_means(image, self.factor)
        return F.interpolate(small, image.shape[2:], mode="bilinear").clamp(0, 1)
