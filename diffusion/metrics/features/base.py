# pyright: strict
"""Networks whose features the distances are taken in, and what is computed by them once."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from diffusion.common.files import written_aside
from diffusion.common.hashing import digest
from diffusion.common.weights import read
from diffusion.metrics.real_images import Data, Rule, selected

Record = dict[str, Any]  # what metrics.json holds, or an entry of it
Device = torch.device | str
T = TypeVar("T")


class Extractor(ABC):
    """Features φ(x) ∈ ℝᴰ and class logits ∈ ℝᴷ of images.

    A distance is comparable with another only if extractor, weights, reference and number of
    images are the same; hence the fingerprint.

    Attributes:
        name: Short name.
        distance: What the Fréchet distance of these features is called; by default "fd_" and name.
        kernel: What their kernel distance is called; by default "kid_" and name.
        score: What the Inception score of these logits is called, or None if it is none.
        reference: The training images that generated ones are compared with.
        accuracy: The share of the test split's labels that the logits get right, if known.
        fingerprint: A hash of the weights, and of all else that the features depend on; known after
            `prepare`.
    """

    name: ClassVar[str]
    distance: ClassVar[str | None] = None
    kernel: ClassVar[str | None] = None
    score: ClassVar[str | None] = None
    reference: ClassVar[Rule] = "all"
    accuracy: float | None = None
    fingerprint: str

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

    def describe(self) -> Record:
        """Returns what a record of a distance must say about its features."""
        return {"name": self.name, "fingerprint": self.fingerprint, "accuracy": self.accuracy}


def check_colours(extractor: Extractor, data: Data) -> None:
    """Refuses images that a network of photographs cannot read; grey is shown as three channels."""
    if data.shape[0] not in (1, 3):
        name = type(extractor).__name__
        raise ValueError(f"{name}: images of {data.shape[0]} channels; expected 1 or 3")


def computed_once(path: Path, compute: Callable[[], T]) -> T:
    """Returns what a file of the cache holds; it is computed and written if it is not there."""
    if not path.is_file():
        content = compute()
        with written_aside(path) as part:
            torch.save(content, part)
    return read(path, "metrics.cache")


def real_features(
    data: Data, split: str, rule: Rule, extractor: Extractor, cache: Path, device: Device = "cpu"
) -> Tensor:
    """Returns the features (N, D) of a split's selected images, float32 on the CPU.

    They are stored under `cache` by a hash of the split's content, the rule and the extractor's
    weights, so that the next run, and the next validation, only reads them.

    Args:
        data: The data module.
        split: "train", "val" or "test".
        rule: Which of the split's images.
        extractor: A prepared extractor.
        cache: Folder for files that are computed once.
        device: Where the extractor computes.
    """

    def features() -> Tensor:
        batches = (batch["image"].to(device) for batch in selected(data, split, rule))
        return torch.cat([extractor(images)[0].cpu() for images in batches])

    return computed_once(features_file(data, split, rule, extractor, cache), features)


def features_file(data: Data, split: str, rule: Rule, extractor: Extractor, cache: Path) -> Path:
    """Returns where `real_features` stores what it has computed; arguments as there."""
    key = {
        "data": data.fingerprint(split),
        "split": split,
        "shape": list(data.shape),
        "rule": rule,
        "extractor": extractor.fingerprint,
    }
    return cache / f"features-{extractor.name}-{digest(key)}.pt"
