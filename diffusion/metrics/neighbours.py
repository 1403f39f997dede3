"""How many generated images are training images."""

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
