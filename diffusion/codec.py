# pyright: strict
"""What is diffused: the pixels themselves, or what a codec makes of them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Self

from torch import Tensor, nn

from diffusion.spec import DataSpec


class Codec(nn.Module, ABC):
    """A fixed map from pictures x to what is diffused, z, and back.

    Its parameters are not trained, and it is always in evaluation. One that only encodes, such as
    the image tower of a CLIP, leaves `decode` as it is and sets `decodes` to False: what is drawn
    are then its z.

    Attributes:
        decodes: Whether it has a way back.
        width: D where z are vectors, (B, D), and the size is known without data; 0 elsewhere.
    """

    decodes = True
    width: int = 0

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Returns z, (B, ...), of pictures x in [−1, 1], (B, C, H, W)."""

    def decode(self, z: Tensor) -> Tensor:
        """Returns x of z.

        Raises:
            ValueError: If it only encodes.
        """
        raise ValueError(f"codec: {type(self).__name__} only encodes; expected one that decodes")

    @abstractmethod
    def spec(self, data: DataSpec) -> DataSpec:
        """Returns what z is, where x is this: its shape, and None for levels that it has not."""

    def remember(self, pictures: Callable[[], Iterable[Tensor]], path: Path) -> None:
        """Encodes pictures once for all; a costly codec keeps the result on disk.

        Args:
            pictures: Returns all that training and validation will encode, in batches.
            path: A file of these pictures and this codec.
        """

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation."""
        return super().train(False)


def vectors_of(data: DataSpec, shape: tuple[int, ...], width: int, key: str) -> DataSpec:
    """Returns what the vectors (B, width) are that a network makes of pictures.

    Args:
        data: The pictures.
        shape: Of those that the network reads, (C, H, W).
        width: D.
        key: What to blame.

    Raises:
        ValueError: If the network reads pictures of another shape.
    """
    if tuple(data.shape) != shape:
        raise ValueError(
            f"{key}: of pictures of shape {shape}; expected {tuple(data.shape)}, as in {data.name}"
        )
    return replace(data, shape=(width,), levels=None)


class Pixels(Codec):
    """z = x."""

    def encode(self, x: Tensor) -> Tensor:
        """Returns x."""
        return x

    def decode(self, z: Tensor) -> Tensor:
        """Returns z."""
        return z

    def spec(self, data: DataSpec) -> DataSpec:
        """Returns the data's own."""
        return data
