"""Images against captions: who fits whom, and which real images had which caption."""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffusion.metrics.real_images import Data, pick


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
    for batch in pick(data, split):
        for text, image in zip(batch.get("text", ()), batch["image"]):
            if text in found:
                found[text].append(image)
    if not all(found.values()):
        return None
    turns = dict.fromkeys(found, 0)
    out = []
    for text in texts:
        out.append(found[text][turns[text] % len(found[text])])
        turns[text] += 1
    return torch.stack(out)
