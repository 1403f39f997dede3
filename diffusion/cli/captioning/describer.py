"""What writes captions of pictures: a `Captioner` of this project, or any other model."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.common.hashing import bytes_digest
from diffusion.common.pixels import scaled
from diffusion.data.reading.decoding import read_picture
from diffusion.networks.captioning.search import Search
from diffusion.noise import SeededNoise
from diffusion.systems.captioning.captioner import Captioner


class Describer(ABC):
    """Pictures → texts. What is drawn depends on a picture's name and a seed, not on the others.

    Attributes:
        at_once: How many pictures to ask of, if nobody says.
    """

    at_once: ClassVar[int]

    @abstractmethod
    def read(self, path: Path) -> Tensor:
        """Returns a picture of a file as it is to be asked of, uint8 (C, H, W).

        Raises:
            ValueError: If it cannot be read.
        """

    @abstractmethod
    def __call__(self, pictures: Mapping[str, Tensor]) -> list[list[str]]:
        """Returns the captions of each of some pictures, by name, as `read` gave them."""


class OwnCaptioner(Describer):
    """A captioner of this project.

    Args:
        module: In evaluation, on its device; it says what it was trained on.
        search: How captions are chosen.
        seed: Of what is drawn.
        n: How many captions of each picture.
    """

    at_once = 64

    def __init__(self, module: Captioner, search: Search, seed: int, n: int) -> None:
        assert module.spec is not None
        self.module, self.search, self.seed, self.n = module, search, seed, n
        self.shape = module.spec.shape

    def read(self, path: Path) -> Tensor:
        """See `Describer`; the shorter side is resized and the centre cropped."""
        return read_picture(path, self.shape[-1], self.shape[0])

    def __call__(self, pictures: Mapping[str, Tensor]) -> list[list[str]]:
        """See `Describer`."""
        x = scaled(torch.stack([*pictures.values()])).to(self.module.device)
        noise = SeededNoise(self.seed, [*map(number, pictures)], self.module.device)
        drawn = [self.module.captions(x, noise.of(i), self.search)[0] for i in range(self.n)]
        return [list(texts) for texts in zip(*drawn)]


def number(name: str) -> int:
    """Returns a number in [0, 2⁶³) that belongs to a name."""
    return int(bytes_digest(name.encode()), 16) >> 1
