"""Which training images are nearest to generated ones, and how many are copied."""

from collections.abc import Iterable

import torch
from torch import Tensor


def nearest(images: Tensor, others: Iterable[Tensor]) -> Tensor:
    """Returns min_j ‖x_i − y_j‖₂/√D, (N,): each image's distance to the nearest of others.

    Pixels are scaled to [−1, 1], so that 0 is a copy and 2 is white against black.

    Args:
        images: uint8 images (N, C, H, W); the distances are computed on their device.
        others: uint8 images in batches (B, C, H, W), of which one at a time is in memory.

    Raises:
        ValueError: If there are no others.
    """
    x = _pixels(images)
    best = torch.full((len(x),), torch.inf, device=x.device)
    for batch in others:
        y = _pixels(batch.to(images.device))
        for rows in torch.arange(len(x), device=x.device).split(2000):
            best[rows] = torch.minimum(best[rows], torch.cdist(x[rows], y).amin(1))
    if len(x) and best.isinf().all():
        raise ValueError("nearest: others has no images, expected at least 1")
    return best / x.shape[1] ** 0.5


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
    x = _pixels(images)
    rows = torch.arange(len(x), device=x.device)[:, None]
    best = torch.empty(len(x), 0, device=x.device)
    found = images.new_empty(len(x), 0, *images.shape[1:])
    for batch in others:
        batch = batch.to(images.device)
        near, at = torch.cdist(x, _pixels(batch)).topk(min(k, len(batch)), largest=False)
        best, order = torch.cat([best, near], 1).sort(dim=1, stable=True)
        best, order = best[:, :k], order[:, :k]
        found = torch.cat([found, batch[at]], 1)[rows, order]
    if not best.shape[1]:
        raise ValueError("neighbours: others has no images, expected at least 1")
    return best / x.shape[1] ** 0.5, found


def near_copies(
    generated: Tensor, held_out: Tensor, train: Iterable[Tensor], quantile: float = 0.05
) -> float:
    """Returns the share of generated images that are closer to the training set than q.

    q is the quantile of the held-out real images' distances to the nearest training image. So
    `quantile` itself, 0.05, is what a model has that copies as little as new real images do; 1
    means that all are copies. In the spirit of Meehan et al. 2020, arXiv:2004.05675.

    Args:
        generated: uint8 images (N, C, H, W).
        held_out: uint8 real images (M, C, H, W) that are not in `train`.
        train: uint8 training images in batches (B, C, H, W).
        quantile: Share of held-out images that counts as near, in (0, 1).

    Raises:
        ValueError: If the quantile is out of range, or there are no images.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"near_copies.quantile: {quantile}, expected a number in (0, 1)")
    if not len(generated) or not len(held_out):
        raise ValueError("near_copies: no generated or no held-out images, expected at least 1")
    distances = nearest(torch.cat([generated, held_out.to(generated.device)]), train)
    ours, real = distances.double().split([len(generated), len(held_out)])
    return (ours < torch.quantile(real, quantile)).double().mean().item()


def _pixels(images: Tensor) -> Tensor:
    return images.flatten(1).float() / 127.5 - 1
