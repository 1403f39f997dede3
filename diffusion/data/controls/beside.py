# pyright: strict
"""What the data have beside a picture."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.data.controls.base import Control


@dataclass
class Beside(Control):
    """A control that comes with each picture, as a second one of the same size: v / 255 of bytes v.

    Nothing computes it of a sample, so nothing says how far samples keep to it; a subclass may.

    Args:
        channels: 1 for grey, 3 for colour.

    Raises:
        ValueError: If it is neither.
    """

    kind = None
    channels: int = 1

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(f"data.controls.channels: {self.channels}; expected 1 or 3")

    def __call__(self, image: Tensor) -> Tensor:
        """See `Control`; not to be had."""
        raise TypeError(f"{self} comes with pictures; expected one that is computed")


def check_beside(controls: Mapping[str, Beside], there: type[Beside] | None, data: str) -> None:
    """Refuses controls that pictures do not come with.

    Args:
        controls: By name.
        there: Which kind there is, None for none.
        data: What errors call the pictures.

    Raises:
        ValueError: If one is of another kind.
    """
    for name, one in controls.items():
        if there is None or not isinstance(one, there):
            kind = "a control computed from the picture" if there is None else there.__name__
            raise ValueError(
                f"data.controls.{name}: {one}; expected {kind}, as the pictures of {data} have "
                "nothing else beside them"
            )


def shares(v: Tensor) -> Tensor:
    """Returns v / 255 of bytes v; what is in [0, 1] already as it is."""
    return v / 255 if v.dtype == torch.uint8 else v
