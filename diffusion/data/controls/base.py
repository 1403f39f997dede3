# pyright: strict
"""What a control is: a function of a picture."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import Tensor


class Control(ABC):
    """image ↦ control in [0, 1], of the image's size; the same in training, testing and drawing.

    Attributes:
        channels: c of the control.
        kind: What is compared of two of them: thin lines, areas, or any values.
    """

    channels: ClassVar[int] = 1
    kind: ClassVar[Literal["edges", "regions", "values"]] = "values"

    @abstractmethod
    def __call__(self, image: Tensor) -> Tensor:
        """Returns the controls (B, c, H, W) in [0, 1] of images (B, C, H, W) in [−1, 1]."""
