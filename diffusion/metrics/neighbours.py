"""Which training images are nearest to generated ones, and how many are copied."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

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
        raise ValueError("nearest: others has no images, expected at least 1")
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
        raise ValueError("neighbours: others has no images, expected at least 1")
    return _scaled(best, images), found


def near_copies(
    generated: Tensor, held_out: Tensor, train: Iterable[Tensor], quantile: float = 0.05
) -> tuple[float, float]:
    """Returns which share of generated images are near copies, and which of held-out real images.

    d is an image's distance to the nearest of all images that training shows. A near copy has
    d = 0, or d ≤ the quantile of the d of held-out real images that are no copies themselves
    (d > 0). So `quantile`, 0.05, is what a model has that copies as little as new real images do,
    and 1 means that all are copies. Where held-out images have duplicates in the training set,
    these count as well, and the second share is larger than the quantile: compare with it. In the
    spirit of Meehan et al. 2020, arXiv:2004.05675.

    Args:
        generated: uint8 images (N, C, H, W).
        held_out: uint8 real images (M, C, H, W) that are not in `train`.
        train: All uint8 images that training shows, in batches (B, C, H, W): every version of
            each, and mirrored ones where it mirrors.
        quantile: Share of held-out images that counts as near, in (0, 1).

    Raises:
        ValueError: If the quantile is out of range, or there are no images.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"near_copies.quantile: {quantile}, expected a number in (0, 1)")
    if not len(generated) or not len(held_out):
        raise ValueError("near_copies: no generated or no held-out images, expected at least 1")
    distances = nearest(torch.cat([generated, held_out.to(generated.device)]), train).double()
    real = distances[len(generated) :]
    new = real[real > 0]
    near = torch.quantile(new, quantile) if len(new) else 0
    copies = (distances <= near).double().split([len(generated), len(held_out)])
    return copies[0].mean().item(), copies[1].mean().item()


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
