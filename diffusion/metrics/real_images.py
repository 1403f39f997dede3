"""Real images: which an extractor learns from, and which samples are compared with."""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from diffusion.common.pixels import quantize
from diffusion.metrics.control_score import Kind
from diffusion.spec import Batch

Rule = Literal["all", "even", "odd"]


class ReadsControl(Protocol):
    """What a picture is controlled by: images in [−1, 1] ↦ (B, c, H, W) in [0, 1].

    Attributes:
        kind: How two of them are compared; None if nothing computes them of a picture.
    """

    kind: ClassVar[Kind | None]

    def __call__(self, image: Tensor) -> Tensor:
        """Returns the controls."""
        ...


class Data(Protocol):
    """What the metrics ask of a data module.

    Attributes:
        shape: One image's, (C, H, W).
        num_classes: Number of classes, None without labels.
        ask: The split whose captions are asked for; None where the data has none.
        asked_split: That, or else the split whose persons samples show.
        controls: What pictures are controlled by, by name.
    """

    shape: tuple[int, ...]
    num_classes: int | None
    ask: str | None

    @property
    def asked_split(self) -> str:
        """See above."""
        ...

    @property
    def controls(self) -> Mapping[str, ReadsControl]:
        """See above."""
        ...

    def batches(self, split: str, batch_size: int = 500) -> Iterator[Batch]:
        """Yields "image" in [−1, 1], (B, C, H, W), in a fixed order.

        And "label", (B,), and "text", B strings, if there are any.
        """
        ...

    def shown(self) -> Iterator[Tensor]:
        """Yields all images that training shows, in [−1, 1], (B, C, H, W): versions, mirrored."""
        ...

    def class_counts(self, split: str) -> list[int] | None:
        """Returns the number of a split's images of each class; None without classes."""
        ...

    def fingerprint(self, split: str) -> str:
        """Returns a hash of the split's content."""
        ...


def selected(data: Data, split: str, rule: Rule = "all") -> Iterator[Batch]:
    """Yields the batches' images with an even or odd number in the split, quantized.

    Args:
        data: The data module.
        split: "train", "val", "test" or another that the data has.
        rule: "even" for images 0, 2, 4, …, "odd" for 1, 3, 5, …, "all" for both.
    """
    seen = 0
    for batch in data.batches(split):
        count = len(batch["image"])
        first = 0 if rule == "all" else (seen + (rule == "odd")) % 2
        seen += count
        rows = slice(first, None, 1 if rule == "all" else 2)
        part = {"image": quantize(batch["image"][rows])}
        part |= {key: batch[key][rows] for key in ("label", "text") if key in batch}
        if len(part["image"]):
            yield part


def shown(data: Data) -> Iterator[Tensor]:
    """Yields all images that training shows, quantized: uint8 (B, C, H, W).

    These are more than the training split has where a thing has several versions, or is mirrored.
    """
    return map(quantize, data.shown())


def collect(data: Data, split: str, rule: Rule = "all") -> tuple[Tensor, Tensor | None]:
    """Returns all picked images, uint8 (N, C, H, W), and their labels, (N,), if there are any."""
    parts = list(selected(data, split, rule))
    if not parts:
        raise ValueError(f"metrics: split {split!r} has no images; expected at least 2")
    labels = torch.cat([p["label"] for p in parts]) if "label" in parts[0] else None
    return torch.cat([p["image"] for p in parts]), labels


def random_rows(x: Tensor, most: int, seed: int = 0) -> Tensor:
    """Returns at most `most` rows in a random order that depends on the seed only."""
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:most]]
