# pyright: strict
"""A picture as large squares of one colour each."""

from dataclasses import dataclass

from torch import Tensor

from diffusion.common.validate import check_counts
from diffusion.data.controls.base import Control, block_means


@dataclass(frozen=True)
class ColourBlocks(Control):
    """Means of squares of `side` pixels, each in all pixels of its square.

    Args:
        side: Of a square, a divisor of H and W.

    Raises:
        ValueError: If it is below 1.
    """

    channels = 3

    side: int = 8

    def __post_init__(self) -> None:
        check_counts("data.controls", side=self.side)

    def __call__(self, image: Tensor) -> Tensor:
        """See `Control`."""
        means = block_means(image, self.side)
        return means.repeat_interleave(self.side, 2).repeat_interleave(self.side, 3).clamp(0, 1)
