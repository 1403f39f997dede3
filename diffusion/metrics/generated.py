"""All figures of one set of generated images, by name."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffusion.metrics.distance import frechet, inception_score, kernel
from diffusion.metrics.features.base import Extractor
from diffusion.metrics.neighbours import near_copies


@dataclass(frozen=True)
class Generated:
    """Generated images, in the order of their seeds.

    Attributes:
        images: uint8 (n, C, H, W).
        labels: The labels that were asked for, (n,), or None.
        features: The extractor's features (n, D), or None.
        logits: The extractor's logits (n, K), or None.
        seconds: Wall time that one process needs for one image.
        evaluations: How often a network was evaluated for one image, by the figure's name.
        texts: The captions that were asked for, n strings, or None.
    """

    images: Tensor
    labels: Tensor | None
    features: Tensor | None
    logits: Tensor | None
    seconds: float
    evaluations: dict[str, float] = field(default_factory=dict)
    texts: list[str] | None = None


def deal(n: int, batch_size: int, rank: int = 0, world: int = 1) -> list[list[int]]:
    """Returns this process's batches of sample numbers out of 0 … n − 1.

    Sample i goes to process i mod world. All processes get as many batches, of the same sizes, so
    that each can be gathered; a process without a sample of its own repeats the last.

    Args:
        n: Number of samples of all processes.
        batch_size: Most samples of a process's batch.
        rank: This process.
        world: Number of processes.
    """
    most = -(-n // world)
    mine = [min(i * world + rank, n - 1) for i in range(most)]
    return [mine[i : i + batch_size] for i in range(0, most, batch_size)]


def some(x: Tensor, most: int, seed: int = 0) -> Tensor:
    """Returns at most `most` rows in a random order that depends on the seed only."""
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:most]]


def distances(
    extractor: Extractor, features: Tensor, logits: Tensor, reference: Tensor, held_out: Tensor
) -> dict[str, float]:
    """Returns distances at n, and with their floor at n' = min(n, number of held-out images).

    The floor is the distance of n' held-out real images from the same reference: what a perfect
    model would get. Only figures with the same number behind the @ may be compared.

    Args:
        extractor: Which names them.
        features: Features of generated images (n, D).
        logits: Their logits (n, K).
        reference: Features of real images (M, D).
        held_out: Features of real images that are not among them (N, D).
    """
    n = len(features)
    real = some(held_out, n)
    sizes = sorted({n, len(real)}, reverse=True)
    sets = [(str(size), features[:size]) for size in sizes] + [("", real)]
    out = {}
    for size, x in sets:
        end = f"@{size}" if size else f"_floor@{len(real)}"
        out[f"{extractor.distance}{end}"] = frechet(x, reference)
        out[f"{extractor.kernel}{end}"] = kernel(x, reference)
    if extractor.score:
        out[f"{extractor.score}@{n}"] = inception_score(logits, min(10, n))[0]
    return out


def label_accuracy(made: Generated, num_classes: int | None) -> dict[str, float]:
    """Returns the share of images whose likeliest label is the one asked for.

    Empty if no label was asked for, or if the extractor's classes are others.
    """
    if made.labels is None or made.logits is None or made.logits.shape[1] != num_classes:
        return {}
    hits = made.logits.argmax(1) == made.labels
    return {f"label_accuracy@{len(hits)}": hits.double().mean().item()}


def accuracy_by_label(made: Generated, num_classes: int | None) -> list[float | None]:
    """Returns label accuracy for each label asked for, None where none was; see `label_accuracy`.

    Args:
        made: The generated images.
        num_classes: The data's K.
    """
    if not label_accuracy(made, num_classes) or made.labels is None or made.logits is None:
        return []
    hits = (made.logits.argmax(1) == made.labels).double()
    shares = [hits[made.labels == y].mean().item() for y in range(num_classes or 0)]
    return [None if share != share else share for share in shares]


def memorization(
    made: Generated, held_out: Tensor, train: Iterable[Tensor], device: torch.device
) -> dict[str, float]:
    """Returns the shares of generated and of held-out images that are near copies.

    See `near_copies`. What held-out ones have is the "_floor", at the number that was looked at.

    Args:
        made: The generated images.
        held_out: uint8 real images that are not in `train`; at most n of them are used.
        train: All uint8 images that training shows, in batches.
        device: Where the distances are computed.
    """
    n = len(made.images)
    real = some(held_out, n)
    share, expected = near_copies(made.images.to(device), real, train)
    return {f"near_copies@{n}": share, f"near_copies_floor@{len(real)}": expected}
