# pyright: strict
"""The colours of a picture without its details."""

import torch.nn.functional as F
from torch import Tensor

from diffusion.common.validate import check_counts
from diffusion.data.controls.base import Control


class LowPass(Control):
    """Means of squares of `factor` pixels, enlarged bilinearly, half pixels at the edges.

    Args:
        factor: Side of a square, a divisor of H and W.

    Raises:
        ValueError: If it is below 1.
    """

    channels = 3

    def __init__(self, factor: int = 4) -> None:
        check_counts("data.controls", factor=factor)
        self.factor = factor

    def __call__(self, image: Tensor) -> Tensor:
        """See `Control`."""
        small = F.avg_pool2d((image + 1) / 2, self.factor)
        return F.interpolate(small, image.shape[2:], mode="bilinear").clamp(0, 1)
