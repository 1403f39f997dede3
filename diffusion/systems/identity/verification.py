"""How well embeddings tell persons apart: pairs of pictures, and the nearest picture."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.systems import accuracy

BINS = 100
MOST = 4000  # pictures whose pairs are all held at once: 8 million


def pairs(embeddings: Tensor, person: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the cosines of all pairs of pictures: of one person, and of two.

    Of more than `MOST` pictures, that many are taken, evenly spread.

    Args:
        embeddings: Of any length, (N, D), on the CPU.
        person: Whose each is, (N,).
    """
    some = torch.linspace(0, len(person) - 1, min(len(person), MOST)).long()
    unit, person = F.normalize(embeddings[some].double(), dim=1).float(), person[some]
    i, j = torch.triu_indices(len(unit), len(unit), 1)
    cos, same = (unit @ unit.T)[i, j], person[i] == person[j]
    return cos[same], cos[~same]


def auc(same: Tensor, different: Tensor) -> float:
    """Returns P(same > different) + ½ P(same = different): the area under the ROC curve.

    Args:
        same: Cosines of pairs of one person.
        different: And of two persons.
    """
    if not (len(same) and len(different)):
        return math.nan
    others = different.sort().values
    below = torch.searchsorted(others, same)
    upto = torch.searchsorted(others, same, right=True)
    return ((below + upto).double() / 2).mean().item() / len(others)


def eer(same: Tensor, different: Tensor) -> float:
    """Returns the rate at which as many pairs of one person are refused as of two are accepted.

    The ROC curve is taken as straight between its points.
    """
    if not (len(same) and len(different)):
        return math.nan
    values = torch.cat([same, different]).unique()
    refused = torch.searchsorted(same.sort().values, values).double() / len(same)
    accepted = 1 - torch.searchsorted(different.sort().values, values).double() / len(different)
    refused = torch.cat([refused, torch.ones(1, dtype=torch.float64)])  # beyond all values
    accepted = torch.cat([accepted, torch.zeros(1, dtype=torch.float64)])
    above = int((refused >= accepted).nonzero()[0])
    if above == 0:
        return refused[0].item()
    (r0, r1), (a0, a1) = refused[above - 1 : above + 1], accepted[above - 1 : above + 1]
    way = (a0 - r0) / ((a0 - r0) - (a1 - r1))
    return (r0 + way * (r1 - r0)).item()


def rank_1(embeddings: Tensor, person: Tensor) -> float:
    """Returns how often the nearest is right, when each person's first picture is what is known.

    All other pictures are asked about; a tie counts as wrong.

    Args:
        embeddings: Of any length, (N, D).
        person: Whose each is, (N,).
    """
    unit = F.normalize(embeddings.double(), dim=1)
    names, number = person.unique(return_inverse=True)
    first = torch.full_like(names, len(person))
    first.scatter_reduce_(0, number, torch.arange(len(person)), "amin")
    asked = torch.ones(len(person), dtype=torch.bool)
    asked[first] = False
    cos = unit[asked] @ unit[first].T
    right = cos.gather(1, number[asked][:, None])
    return ((cos >= right).sum(1) == 1).double().mean().item()


def figures(embeddings: Tensor, person: Tensor) -> dict[str, float]:
    """Returns "auc" and "eer" of all pairs, "rank1", and the mean cosines "same" and "other".

    Args:
        embeddings: (N, D), on the CPU.
        person: Whose each is, (N,).
    """
    same, different = pairs(embeddings, person)
    return {
        "auc": auc(same, different),
        "eer": eer(same, different),
        "rank1": rank_1(embeddings, person),
        "same": same.mean().item(),
        "other": different.mean().item(),
    }


def record(embeddings: Tensor, person: Tensor) -> dict[str, Any]:
    """Returns what a test found, as JSON can hold it.

    Beside the figures: the share of pairs in `BINS` equal parts of −1 … 1 of the cosine, and the
    length of embeddings, mean and standard deviation.
    """
    shares = [(cos.histc(BINS, -1, 1) / len(cos)).tolist() for cos in pairs(embeddings, person)]
    length = embeddings.norm(dim=1)
    return {
        "figures": figures(embeddings, person),
        "pictures": len(person),
        "persons": len(person.unique()),
        "width": embeddings.shape[1],
        "length": [length.mean().item(), length.std().item()],
        "cosines": dict(zip(("same", "other"), shares)),
    }


def plot(found: Mapping[str, Any], path: Path) -> None:
    """Plots how often cosines of pairs are met, of one person and of two.

    Args:
        found: What `record` returns.
        path: Where to.
    """
    middles = [(2 * i + 1) / BINS - 1 for i in range(BINS)]
    with accuracy.axes(path, "pairs with a smaller cosine") as ax:
        for name, shares in found["cosines"].items():
            ax.plot(middles, torch.tensor(shares).cumsum(0), label=f"{name} person")
        ax.set_xlabel("cosine of two pictures' embeddings")
