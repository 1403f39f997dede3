"""The swiss roll: points on a spiral in the plane, the toy data of the first diffusion model."""

import math

import numpy as np
import torch

from diffusion.common.validate import check_counts
from diffusion.data.base import Images
from diffusion.data.sets import Memory


class SwissRoll(Images):
    """x = (t cos t, t sin t) + noise · ε with t ~ U[3π/2, 9π/2], centred, of about unit variance.

    The data of Sohl-Dickstein et al. (2015), section 3.1.1. Batches are {"image": float32 (B, 2)};
    each split has its own points, which do not depend on `seed`.

    Args:
        points: Points in each split.
        noise: Standard deviation of the noise before scaling; the arms are 2π apart.
        points_seed: Which points are drawn.
        batch_size: Points per batch and process.
        num_workers: Processes that read ahead.
        seed: Decides the order of training.
        samples: How many samples `predict` draws.
    """

    shape = (2,)
    levels = None

    def __init__(
        self,
        points: int = 10_000,
        noise: float = 0.5,
        points_seed: int = 0,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        samples: int = 64,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed, samples=samples)
        check_counts("data", points=points)
        self.points, self.noise, self.points_seed = points, noise, points_seed

    def setup(self, stage: str) -> None:
        """Draws the points of the three splits."""
        self.train_set, self.val_set, self.test_set = (self._draw(number) for number in range(3))

    def _draw(self, number: int) -> Memory:
        random = np.random.RandomState([self.points_seed, number])
        t = random.uniform(1.5 * math.pi, 4.5 * math.pi, size=(self.points, 1))
        x = np.hstack([t * np.cos(t), t * np.sin(t)])
        x += self.noise * random.standard_normal(x.shape)
        # The curve's own moments: E[x] = (2, 2/3π) and E|x|² = E[t²] = 9.75 π².
        mean = np.array([2.0, 2 / (3 * math.pi)])
        variance = (9.75 * math.pi**2 - np.sum(mean**2)) / 2
        return Memory(torch.from_numpy((x - mean) / math.sqrt(variance)).float())
