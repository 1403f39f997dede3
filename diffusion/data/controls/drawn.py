# pyright: strict
"""Line drawings that come with the data."""

from dataclasses import dataclass, field

from torch import Tensor

from diffusion.data.controls.beside import Beside
from diffusion.data.controls.canny import Canny


@dataclass
class Drawn(Beside):
    """Lines drawn beside each picture, white on black.

    Those of a picture that has none, such as a sample, are the edges of `Canny`. They are not the
    same, so that real pictures do not get an F1 of 1 either: it is theirs that counts as ceiling.
    """

    kind = "edges"
    channels: int = field(default=1, init=False)

    def __call__(self, image: Tensor) -> Tensor:
        """See `Control`."""
        return Canny()(image)
