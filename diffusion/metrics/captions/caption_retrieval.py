"""Images and captions in one space: how near an image's own caption is, and among which others."""

from collections.abc import Sequence
from itertools import cycle

import torch
from torch import Tensor

from diffusion.metrics.base import Figure
from diffusion.metrics.real_images import Data, selected

WORDS = {
    "clip_score": ("CLIP score", "Mean cosine of sample and caption, by the scorer."),
    "clip_r1": (
        "Caption found at once",
        "Share whose own caption is the nearest of all distinct ones.",
    ),
    "clip_r5": ("Caption among five", "Share whose own caption is among the five nearest."),
}


def caption_figures(cosines: Tensor, own: Tensor) -> dict[str, Figure]:
    """Returns score and retrieval of n images by name, such as clip_r5@n.

    Args:
        cosines: Of images and distinct captions (n, m).
        own: The number of each image's caption (n,).
    """
    n, m = cosines.shape
    values = {"clip_score": mean_at(cosines, own)}
    # Of fewer captions, all are among the k nearest.
    values |= {f"clip_r{k}": retrieval(cosines, own, k) for k in (1, 5) if k < m}
    return {
        f"{name}@{n}": Figure(
            value, n, *WORDS[name], "high", name != "clip_score", ("text",),
            leading=name != "clip_r5",
        )
        for name, value in values.items()
    }  # fmt: skip


def distinct_texts(texts: Sequence[str]) -> tuple[list[str], Tensor]:
    """Returns the distinct texts in their order, and the number of each text among them, (n,)."""
    number = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    return list(number), torch.tensor([number[text] for text in texts])


def mean_at(cosines: Tensor, which: Tensor) -> float:
    """Returns the mean of one cosine of each row.

    Args:
        cosines: (n, m).
        which: The column of each row, (n,).
    """
    return cosines.gather(1, which[:, None]).double().mean().item()


def retrieval(cosines: Tensor, own: Tensor, k: int) -> float:
    """Returns the share of rows whose own column is among the k largest, 0 … 1.

    Equal cosines are in random order: of r that tie for the places after b larger ones, each is
    among the k largest with probability min(max(k − b, 0), r) / r. So a scorer that gives all the
    same has k/m, and not 1.

    Args:
        cosines: Of images and distinct captions (n, m).
        own: The column of each image's caption (n,).
        k: How many places count.
    """
    mine = cosines.gather(1, own[:, None])
    larger, equal = (cosines > mine).sum(1), (cosines == mine).sum(1)
    return ((k - larger).clamp_min(0) / equal).clamp(max=1).double().mean().item()


def exchanged(m: int, seed: int = 0) -> Tensor:
    """Returns a permutation of 0 … m − 1, int64 (m,), without a fixed point: one random cycle.

    Args:
        m: At least 2.
        seed: Seed of the order in the cycle.
    """
    order = torch.randperm(m, generator=torch.Generator().manual_seed(seed))
    return torch.empty_like(order).scatter_(0, order, order.roll(-1))


def matching(texts: Sequence[str], data: Data, split: str) -> Tensor | None:
    """Returns real images with the given captions, uint8 (n, C, H, W), or None if one has none.

    A caption that is asked for again gets the next picture that has it, and after the last the
    first.

    Args:
        texts: The captions.
        data: The data module; batches have "text".
        split: Whose pictures.
    """
    found: dict[str, list[Tensor]] = {text: [] for text in texts}
    for batch in selected(data, split):
        for text, image in zip(batch.get("text", ()), batch["image"]):
            if text in found:
                found[text].append(image)
    if not all(found.values()):
        return None
    turns = {text: cycle(images) for text, images in found.items()}
    return torch.stack([next(turns[text]) for text in texts])
