"""Which training images are nearest to generated ones, and how many are copied."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from diffusion.metrics.base import Figure, Measure, SampleBatch
from diffusion.metrics.real_images import collect, random_rows, shown

CHUNK = 2**26  # values of images in memory at once


def where_exact(x: Tensor) -> Tensor:
    """Returns the tensor on its device, or on the CPU if that has no float64.

    Sums of squares of bytes are exact in float64, and copies are told from near ones.
    """
    return x.cpu() if x.device.type == "mps" else x


def nearest(images: Tensor, others: Iterable[Tensor]) -> Tensor:
    """Returns min_j ‖x_i − y_j‖₂/√D, (N,): each image's distance to the nearest of others.

    Pixels are scaled to [−1, 1], so that 0 is a copy and 2 is white against black. All sums are
    exact: a copy has 0, and nothing else has.

    Args:
        images: uint8 images (N, C, H, W); the distances are computed on their device.
        others: uint8 images in batches (B, C, H, W), of which one at a time is in memory.

    Raises:
        ValueError: If there are no others.
    """
    images = where_exact(images)
    best = torch.full((len(images),), torch.inf, device=images.device, dtype=torch.float64)
    for batch in others:
        for rows, squares in _squares(images, batch):
            best[rows] = torch.minimum(best[rows], squares.amin(1))
    if len(images) and best.isinf().all():
        raise ValueError("nearest: others has no images; expected at least 1")
    return _scaled(best, images)


def neighbours(images: Tensor, others: Iterable[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """Returns the k nearest of others to each image: distances (N, k), nearest first, and images.

    The distances are those of `nearest`; the images are uint8 (N, k, C, H, W). If there are fewer
    than k others, it is all of them.

    Args:
        images: uint8 images (N, C, H, W), few; the distances are computed on their device.
        others: uint8 images in batches (B, C, H, W), of which one at a time is in memory.
        k: How many, at least 1.

    Raises:
        ValueError: If there are no others.
    """
    images = where_exact(images)
    rows = torch.arange(len(images), device=images.device)[:, None]
    best = torch.empty(len(images), 0, device=images.device, dtype=torch.float64)
    found = images.new_empty(len(images), 0, *images.shape[1:])
    for batch in others:
        batch = batch.to(images.device)
        squares = torch.cat([part for _, part in _squares(images, batch)])
        near, at = squares.topk(min(k, len(batch)), largest=False)
        best, order = torch.cat([best, near], 1).sort(dim=1, stable=True)
        best, order = best[:, :k], order[:, :k]
        found = torch.cat([found, batch[at]], 1)[rows, order]
    if not best.shape[1]:
        raise ValueError("neighbours: others has no images; expected at least 1")
    return _scaled(best, images), found


class NearCopies(Measure):
    """The share of samples that are near copies of training images.

    d is an image's distance to the nearest of all images that training shows. A near copy has
    d = 0, or d ≤ the quantile of the d of held-out real images that are no copies themselves
    (d > 0). So `quantile`, 0.05, is what a model has that copies as little as new real images do,
    and 1 means that all are copies. Where held-out images have duplicates in the training set,
    these count as well, and their own share, the floor, is larger than the quantile: compare with
    it. In the spirit of Meehan et al. 2020, arXiv:2004.05675.

    Every process reads the training images once, when the states are exchanged.

    Args:
        held_out: Most held-out images that are looked at.
        quantile: Share of held-out images that counts as near, in (0, 1).

    Raises:
        ValueError: If the quantile is out of range.
    """

    images: list[Tensor]
    distances: list[Tensor]

    def __init__(self, held_out: int = 10_000, quantile: float = 0.05) -> None:
        super().__init__()
        if not 0 < quantile < 1:
            raise ValueError(f"NearCopies.quantile: {quantile}; expected a number in (0, 1)")
        self.held_out, self.quantile = held_out, quantile
        self.real = torch.empty(0)
        self.add_state("images", [], None)
        self.add_state("distances", [], "cat")

    def update(self, samples: SampleBatch) -> None:
        """Keeps the images until `sync`."""
        self.count(samples)
        self.images.append(samples.images)

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Turns this process's images into distances before they are exchanged."""
        if self.images:
            images = torch.cat(self.images)
            real = random_rows(collect(self.data, "test")[0], self.held_out).to(images.device)
            found = nearest(torch.cat([images, real]), shown(self.data)).double()
            self.real = found[len(images) :].cpu()
            self.distances.append(found[: len(images)])
            self.images = []
        super().sync(*args, **kwargs)

    def evaluate(self) -> dict[str, Figure]:
        """Returns the share at n, and its floor."""
        distances = dim_zero_cat(self.distances).cpu()
        new = self.real[self.real > 0]
        near = torch.quantile(new, self.quantile) if len(new) else 0
        share, expected = ((x <= near).double().mean().item() for x in (distances, self.real))
        figure = Figure(
            share, n := len(distances), "Near copies",
            "Share that are copies of a training image, or nearer to one than 95 % of new real "
            "images; more than held-out images have is copied.",
            share=True, depends=("data", "labels"), baseline=expected,
        )  # fmt: skip
        floor = figure.floor(expected, m := len(self.real))
        return {f"near_copies@{n}": figure, f"near_copies_floor@{m}": floor}


def _squares(images: Tensor, others: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yields some rows and Σ (x − y)² of them and all others, of whole levels: exact."""
    y = others.to(images.device).flatten(1).double()
    size = max(1, CHUNK // max(1, y.shape[1]))
    for first in range(0, len(images), size):
        rows = slice(first, first + size)
        x = images[rows].flatten(1).double()
        yield rows, x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T


def _scaled(squares: Tensor, images: Tensor) -> Tensor:
    return ((squares / images.shape[1:].numel()).sqrt() / 127.5).float()
