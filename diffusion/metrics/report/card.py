"""The evaluation card's own measurements: what is asked of it, and nearest training images."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffusion.common.validate import check_counts
from diffusion.metrics.features.base import Extractor
from diffusion.metrics.fidelity import K_COVERAGE, K
from diffusion.metrics.neighbours import neighbours
from diffusion.metrics.real_images import Data, collect, random_rows, shown


@dataclass(frozen=True)
class Card:
    """What a card measures besides the usual figures, and shows.

    Attributes:
        k: Which neighbour the balls of precision and recall reach to; both conventions say 3.
        k_coverage: Which neighbour those of density and coverage reach to; the paper says 5.
        extractors: More networks in whose features precision, recall, density and coverage are
            measured, besides that of the distances.
        samples: How many samples, from the first, are shown with their nearest training images.
        neighbours: How many training images each.
    """

    k: int = K
    k_coverage: int = K_COVERAGE
    extractors: Sequence[Extractor] = field(default_factory=list)
    samples: int = 16
    neighbours: int = 7

    def check(self, n: int) -> None:
        """Refuses what cannot be measured with n images.

        Raises:
            ValueError: If k is not in 1 … n − 1, or nothing would be shown.
        """
        for key, value in {"k": self.k, "k_coverage": self.k_coverage}.items():
            if not 1 <= value < n:
                raise ValueError(
                    f"metrics.card.{key}: {value}; expected at least 1, less than n = {n}"
                )
        check_counts("metrics.card", samples=self.samples, neighbours=self.neighbours)

    def all(self, extractor: Extractor | None) -> list[Extractor]:
        """Returns the extractors, that of the distances first."""
        return [*([extractor] if extractor else []), *self.extractors]


@dataclass(frozen=True)
class Nearest:
    """Samples and the training images nearest to them.

    Attributes:
        samples: uint8 (N, C, H, W).
        distances: (N, k), root mean square of the pixels' difference in [−1, 1].
        images: uint8 (N, k, C, H, W).
        usual: The median of held-out images' distance to their nearest training image.
    """

    samples: Tensor
    distances: Tensor
    images: Tensor
    usual: float


def find_nearest(card: Card, images: Tensor, data: Data, device: torch.device) -> Nearest:
    """Returns the first samples with the training images nearest to them."""
    samples = images[: card.samples].to(device)
    real = random_rows(collect(data, "test")[0], 200).to(device)
    distances, found = neighbours(torch.cat([samples, real]), shown(data), card.neighbours)
    usual = distances[len(samples) :, 0].median().item()
    n = len(samples)
    return Nearest(samples.cpu(), distances[:n].cpu(), found[:n].cpu(), usual)
