# pyright: strict
"""Networks whose features the distances are taken in."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.metrics.real_images import Data, Rule


class Extractor(ABC):
    """Features φ(x) ∈ ℝᴰ and class logits ∈ ℝᴷ of images.

    A distance is comparable with another only if extractor, weights, reference and number of
    images are the same; hence the fingerprint.

    Attributes:
        name: Short name.
        distance: What the Fréchet distance of these features is called in logs.
        kernel: What their kernel distance is called.
        score: What the Inception score of these logits is called, or None if it is none.
        reference: The training images that generated ones are compared with.
        accuracy: The share of the test split's labels that the logits get right, if known.
    """

    name: ClassVar[str]
    distance: ClassVar[str]
    kernel: ClassVar[str]
    score: ClassVar[str | None] = None
    reference: ClassVar[Rule] = "all"
    accuracy: float | None = None

    @abstractmethod
    def prepare(self, data: Data, cache: Path, progress: bool = True) -> None:
        """Loads the network, or trains it and stores it under `cache`.

        Args:
            data: The data module.
            cache: Folder for files that are computed once.
            progress: Whether to draw a progress bar.
        """

    @abstractmethod
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns float32 features (B, D) and logits (B, K) of uint8 images (B, C, H, W)."""

    @property
    def label(self) -> str:
        """Its name for people."""
        return type(self).__name__

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of the weights; known after `prepare`."""

    def describe(self) -> dict[str, str | float | None]:
        """Returns what a record of a distance must say about its features."""
        return {"name": self.name, "fingerprint": self.fingerprint, "accuracy": self.accuracy}


def published(key: str, given: str | None, url: str, what: str) -> Path:
    """Returns the file of a published network's weights; nothing is downloaded.

    Args:
        key: The argument that names the file, for the error.
        given: The file, or None for where torch itself keeps what it downloads from the address.
        url: Where the weights are published.
        what: The network, for the error.

    Raises:
        FileNotFoundError: If there is no such file; names the command that fetches it.
    """
    default = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    path = default if given is None else Path(given)
    if not path.is_file():
        raise FileNotFoundError(
            f"{key}: {path} does not exist; expected {what}; get it with "
            f"`curl -L --create-dirs -o {path} {url}`"
        )
    return path
