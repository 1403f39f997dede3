"""Two trees in the plane: a mixture of Gaussians with branches on every scale, and two classes."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from diffusion.common.validate import check_counts
from diffusion.data.base import Images
from diffusion.data.sets import Memory

PARTS = 8  # Gaussians along a branch


class Tree(Images):
    """x ~ Σ_k w_k N(m_k, C_k) in each of two classes, whose components lie along branches.

    In the manner of the toy data of Karras et al. 2024 (https://arxiv.org/abs/2406.02507, section 3
    and appendix), with numbers of our own: a branch is PARTS Gaussians in a row, and at its end two
    branches of 0.72 times its length and 0.6 times its width part by about ±0.5; a component weighs
    as its branch's area, so that the finest ones, the leaves, are rare. Both trees grow from one
    root. All is moved and scaled to mean 0 and a variance of 1 per dimension on average. Batches
    are {"image": float32 (B, 2), "label": (B,)}; each split has its own points.

    Args:
        points: Points in each split.
        depth: Branches from the root to a leaf.
        points_seed: Which points are drawn; the trees are always the same.
        batch_size: Points per batch and process.
        num_workers: Processes that read ahead.
        seed: Decides the order of training.
        samples: How many samples `predict` draws.

    Attributes:
        weights: w, float64 (2, K), each row summing to 1.
        means: m, (2, K, 2).
        factors: L with C = L Lᵀ, (2, K, 2, 2): columns along the branch and across it.
        leaves: Whether a component is of a branch without children, bool (2, K).
    """

    shape, num_classes, classes = (2,), 2, ("one", "other")
    levels = None

    def __init__(
        self,
        points: int = 100_000,
        depth: int = 6,
        points_seed: int = 0,
        batch_size: int = 1024,
        num_workers: int = 0,
        seed: int = 0,
        samples: int = 64,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed, samples=samples)
        check_counts("data", points=points, depth=depth)
        self.points, self.depth, self.points_seed = points, depth, points_seed
        self.weights, self.means, self.factors, self.leaves = _mixture(depth)

    def setup(self, stage: str) -> None:
        """Draws the points of the three splits."""
        self.train_set, self.val_set, self.test_set = (self._draw(number) for number in range(3))

    def _draw(self, number: int) -> Memory:
        random = np.random.RandomState([self.points_seed, number])
        labels = random.randint(0, 2, self.points)
        steps = self.weights.cumsum(1).numpy()
        places = [np.searchsorted(row / row[-1], random.uniform(size=self.points)) for row in steps]
        k = torch.from_numpy(np.where(labels == 0, *places))
        y = torch.from_numpy(labels)
        noise = torch.from_numpy(random.standard_normal((self.points, 2, 1)))
        x = self.means[y, k] + (self.factors[y, k] @ noise).squeeze(-1)
        return Memory(x.float(), y)

    def log_components(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Returns log(w_k N(x; m_k, C_k)) and the Mahalanobis distances, both (B, K).

        Args:
            x: Points (B, 2).
            label: Their classes, (B,).
        """
        log_det = torch.linalg.det(self.factors).abs().log()
        peak = self.weights.log() - log_det - math.log(2 * math.pi)
        white = torch.linalg.inv(self.factors)[label]
        z = white @ (x.double()[:, None] - self.means[label])[..., None]
        square = z.square().sum((-1, -2))
        return peak[label] - square / 2, square.sqrt()

    def log_density(self, x: Tensor, label: Tensor) -> Tensor:
        """Returns log p(x | label), (B,); arguments as for `log_components`."""
        return self.log_components(x, label)[0].logsumexp(1)

    def leaves_hit(self, x: Tensor, label: Tensor) -> float:
        """Returns the share of the leaves' components that some point belongs to.

        A point belongs to the likeliest component, if it lies within 3 standard deviations of it.
        """
        score, distance = self.log_components(x, label)
        k = score.argmax(1)
        inside = distance.gather(1, k[:, None])[:, 0] < 3
        hit = torch.zeros_like(self.leaves)
        hit[label[inside], k[inside]] = True
        return (hit & self.leaves).sum().item() / self.leaves.sum().item()


def _branches(
    start: np.ndarray,
    angle: float,
    length: float,
    width: float,
    left: int,
    random: np.random.RandomState,
) -> Iterator[tuple[np.ndarray, np.ndarray, float, bool]]:
    """Yields mean, factor, weight and whether it is a leaf's, of every component of a tree."""
    along = np.array([math.cos(angle), math.sin(angle)])
    across = np.array([-along[1], along[0]])
    factor = np.stack([along * length / PARTS / 1.7, across * width], axis=1)
    for i in range(PARTS):
        place = start + along * length * (i + 0.5) / PARTS
        yield place, factor, length * width, left == 1
    for side in (-1, 1) if left > 1 else ():
        turned = angle + side * random.uniform(0.35, 0.65)
        shorter = length * random.uniform(0.66, 0.78)
        yield from _branches(start + along * length, turned, shorter, width * 0.6, left - 1, random)


def _mixture(depth: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns weights, means, factors and leaves of both trees, scaled."""
    random = np.random.RandomState(0)
    trees = [
        list(zip(*_branches(np.zeros(2), angle, 1.0, 0.08, depth, random)))
        for angle in (0.25 * math.pi, 0.65 * math.pi)
    ]
    means, factors, areas, leaves = (torch.from_numpy(np.array(part)) for part in zip(*trees))
    weights = areas / areas.sum(1, keepdim=True)
    share = weights / 2
    mean = (share[..., None] * means).sum((0, 1))
    spread = (means - mean).square().sum(-1) + factors.square().sum((-1, -2))
    std = ((share * spread).sum() / 2).sqrt()
    return weights, (means - mean) / std, factors / std, leaves
