"""The contrastive loss of CLIP (Radford et al. 2021, figure 3), which is symmetric InfoNCE."""

import hashlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def numbers(texts: Sequence[str]) -> Tensor:
    """Returns 64 bits of each text's SHA-256, int64 (B,): the same text, the same number."""
    found = [hashlib.sha256(text.encode()).digest()[:8] for text in texts]
    return torch.tensor([int.from_bytes(bits, "big", signed=True) for bits in found])


def info_nce(
    images: Tensor, texts: Tensor, scale: Tensor, every: Sequence[Tensor], own: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the symmetric loss of B pairs among N, and whether a picture's text came first.

    With the logits s_ij = e^λ ⟨f_i, g_j⟩ of picture i and text j,

        ℓ_i = −½ log e^{s_ii} / Σ_{j ∈ C_i} e^{s_ij} − ½ log e^{s_ii} / Σ_{j ∈ C_i} e^{s_ji}

    where C_i is i itself and all j whose text is another than i's: pictures that share a text are
    not told apart by it, so such a pair is neither right nor wrong, and left out of both sums. If
    all texts differ, C_i is everything and this is CLIP's loss. A text that several others share
    counts as often as it occurs.

    Args:
        images: f_i of the B pairs, (B, D).
        texts: g_i of the B pairs, (B, D).
        scale: e^λ, shape ().
        every: f, g and `numbers` of all N pairs: (N, D), (N, D), (N,).
        own: The places of the B pairs among the N, (B,).

    Returns:
        ℓ (B,) and a bool (B,).
    """
    all_images, all_texts, number = every
    alike = number[own][:, None] == number
    alike = alike.scatter(1, own[:, None], False)  # i itself stays
    to_text = (scale * images @ all_texts.T).masked_fill(alike, -torch.inf)
    to_image = (scale * texts @ all_images.T).masked_fill(alike, -torch.inf)
    losses = [F.cross_entropy(logits, own, reduction="none") for logits in (to_text, to_image)]
    return (losses[0] + losses[1]) / 2, to_text.argmax(1) == own
