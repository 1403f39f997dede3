# pyright: strict
"""How far controls agree with those that were asked for, by what kind they are."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Kind = Literal["edges", "regions", "values"]
HALF = 0.5  # what is above it is an edge, or inside
WHITE = 255


def f1(seen: Tensor, given: Tensor) -> Tensor:
    """Returns F = 2 P R / (P + R) of edges within one pixel, float64 (n, m).

    P is the share of the pixels seen that have a given one among their 3 x 3, R that of the given
    ones that have a seen one among theirs. F is 1 where both have none, and 0 where one has none.

    Args:
        seen: (n, c, H, W); what is above 1/2 is an edge.
        given: (m, c, H, W).
    """
    a, b = (x > HALF for x in (seen, given))
    wide_a, wide_b = (F.max_pool2d(x.float(), 3, 1, 1) for x in (a, b))
    a, b, wide_a, wide_b = (x.flatten(1).double() for x in (a, b, wide_a, wide_b))
    precision = a @ wide_b.T / a.sum(1, keepdim=True).clamp_min(1)
    recall = wide_a @ b.T / b.sum(1).clamp_min(1)
    found = 2 * precision * recall / (precision + recall).clamp_min(1e-12)
    return torch.where(_both_empty(a, b), 1.0, found)


def iou(seen: Tensor, given: Tensor) -> Tensor:
    """Returns |A ∩ B| / |A ∪ B| of what is above 1/2, float64 (n, m); 1 where both are empty."""
    a, b = ((x > HALF).flatten(1).double() for x in (seen, given))
    both = a @ b.T
    either = a.sum(1, keepdim=True) + b.sum(1) - both
    return torch.where(_both_empty(a, b), 1.0, both / either.clamp_min(1))


def rmse(seen: Tensor, given: Tensor) -> Tensor:
    """Returns the root of the mean squared difference in grey levels 0 … 255, float64 (n, m)."""
    a, b = (x.flatten(1).double() for x in (seen, given))
    apart = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    return WHITE * apart / a.shape[1] ** 0.5


def _both_empty(a: Tensor, b: Tensor) -> Tensor:
    return ~a.any(1, keepdim=True) & ~b.any(1)


@dataclass(frozen=True)
class Score:
    """How two controls of one kind are compared.

    Attributes:
        table: What n controls seen get for m given ones, (n, m).
        title: Its name for people.
        phrase: What it says.
        better: Which direction is better.
    """

    table: Callable[[Tensor, Tensor], Tensor]
    title: str
    phrase: str
    better: Literal["low", "high"]


SCORES: dict[Kind, Score] = {
    "edges": Score(f1, "F1", "F1 of edges within one pixel of those given.", "high"),
    "regions": Score(iou, "IoU", "Area in both by area in either, of what was given.", "high"),
    "values": Score(rmse, "RMSE", "Grey levels, 0 … 255, away from what was given.", "low"),
}
