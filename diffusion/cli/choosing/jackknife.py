"""How far a Fréchet distance depends on which samples were drawn."""

from pathlib import Path

import torch
from torch import Tensor

from diffusion.metrics.base import Figure, in_sample_order
from diffusion.metrics.distance import GatheredDistance, frechet_of_moments, moments
from diffusion.metrics.features.base import Extractor
from diffusion.metrics.real_images import Data


class Jackknife(GatheredDistance):
    """d_1 … d_g, where d_j is the Fréchet distance without the j-th block of the samples.

    Two sets of samples with the same noise and requests share most of what chance does to them,
    and so do their d_j: see `error`. It has no figure of its own.

    Args:
        extractor: Prepared with the measure.
        blocks: g, of consecutive numbers.

    Attributes:
        distances: d_1 … d_g, float64, (g,); known after `evaluate`.
    """

    distances: Tensor

    def __init__(self, extractor: Extractor, blocks: int = 8) -> None:
        super().__init__(extractor)
        self.blocks = blocks

    def prepare(self, data: Data, cache: Path, progress: bool = True) -> None:
        """Computes the moments of the real images."""
        super().prepare(data, cache, progress)
        self.real = moments(self.reference)

    def evaluate(self) -> dict[str, Figure]:
        """Returns nothing."""
        (features,) = in_sample_order(self.index, self.features)
        parts = features.tensor_split(self.blocks)
        rest = (torch.cat([*parts[:j], *parts[j + 1 :]]) for j in range(self.blocks))
        found = [frechet_of_moments(*moments(x), *self.real) for x in rest]
        self.distances = torch.tensor(found, dtype=torch.float64)
        return {}


def error(first: Tensor, second: Tensor) -> float:
    """Returns the standard error of the difference of two distances, √((g − 1)/g Σ (δ_j − δ̄)²).

    δ_j is the difference of the two without block j (the delete-a-group jackknife: Tukey 1958).

    Args:
        first: `Jackknife.distances` of some samples, (g,).
        second: Those of others of the same noise, (g,).
    """
    delta = first - second
    return ((len(delta) - 1) * delta.var(correction=0)).sqrt().item()
