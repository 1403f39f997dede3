"""How well pictures and texts find each other: CLIP's loss, recall@k, and what a test writes."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.process import Process
from diffusion.systems import accuracy

KS = (1, 5, 10)
ROWS = 1000  # of the matrix of products that are held at once


def numbers(texts: Sequence[str]) -> Tensor:
    """Returns 64 bits of each text's SHA-256, int64 (B,): the same text, the same number."""
    found = [hashlib.sha256(text.encode()).digest()[:8] for text in texts]
    return torch.tensor([int.from_bytes(bits, "big", signed=True) for bits in found])


def info_nce(
    images: Tensor, texts: Tensor, scale: Tensor, every: Sequence[Tensor], own: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the loss of CLIP, symmetric InfoNCE (Radford et al. 2021, figure 3), of B pairs of N.

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


def loss_among_all(
    system: L.LightningModule, own: Sequence[Tensor], scale: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns `info_nce` of this process's pairs among those of all processes, each (B,).

    The mean over its pairs, averaged over the processes as DDP averages gradients, is the loss of
    one process that has all pairs.

    Args:
        system: Whose processes they are.
        own: f (B, D), g (B, D), and `numbers` of the texts, (B,).
        scale: e^λ, shape ().
    """

    def of_all(x: Tensor) -> Tensor:
        """Returns the rows of all processes, with gradients where there are some."""
        every: Any = system.all_gather(x, sync_grads=x.is_floating_point())
        return every.reshape(-1, *x.shape[1:])

    images, texts, number = own
    every = [of_all(x) for x in own]
    places = torch.arange(len(number), device=number.device) + system.global_rank * len(number)
    with torch.autocast(images.device.type, enabled=False):
        return info_nce(images, texts, scale, every, places)


@dataclass(frozen=True)
class Pairs:
    """N pictures and their M distinct texts, as unit vectors.

    Attributes:
        images: f, (N, D).
        texts: g, (M, D).
        number: Which text is a picture's, int64 (N,), in 0 … M − 1; every text is some picture's.
    """

    images: Tensor
    texts: Tensor
    number: Tensor

    @classmethod
    def from_each(cls, images: Tensor, texts: Tensor, numbers: Tensor) -> "Pairs":
        """Returns pairs with each text once, of pictures that each came with theirs.

        Args:
            images: f, (N, D).
            texts: g of each picture's text, (N, D).
            numbers: What tells the texts apart, (N,).
        """
        distinct, number = numbers.unique(return_inverse=True)
        first = torch.full_like(distinct, len(number))
        first.scatter_reduce_(0, number, torch.arange(len(number)), "amin")
        return cls(images, texts[first], number)

    def ranks(self) -> tuple[Tensor, Tensor]:
        """Returns how many wrong ones come before the first right one, from 0.

        A tie counts as before, so that vectors which are all the same find nothing.

        Returns:
            Of each picture among the texts, (N,), and of each text among the pictures, (M,).
        """
        to_text, to_image = [], []
        for images, number in zip(self.images.split(ROWS), self.number.split(ROWS)):
            products = images @ self.texts.T
            right = products.gather(1, number[:, None])
            to_text.append((products >= right).sum(1) - 1)
        for texts, number in zip(self.texts.split(ROWS), torch.arange(len(self.texts)).split(ROWS)):
            products = texts @ self.images.T
            mine = number[:, None] == self.number
            best = products.masked_fill(~mine, -torch.inf).amax(1, keepdim=True)
            to_image.append(((products >= best) & ~mine).sum(1))
        return torch.cat(to_text), torch.cat(to_image)

    def figures(self, scale: Tensor) -> dict[str, float]:
        """Returns "recall@k" (picture → text), "recall@k_t2i" (text → picture), and "loss".

        A recall is the share of pictures whose text is among the k nearest of the M texts, or of
        texts of which some picture is among the k nearest of the N. The loss is `info_nce` among
        all N pairs.

        Args:
            scale: e^λ, shape ().
        """
        to_text, to_image = (rank.double() for rank in self.ranks())
        found = {f"recall@{k}": (to_text < k).double().mean().item() for k in KS}
        found |= {f"recall@{k}_t2i": (to_image < k).double().mean().item() for k in KS}
        texts, places = self.texts[self.number], torch.arange(len(self.number))
        losses = [
            info_nce(self.images[i], texts[i], scale, (self.images, texts, self.number), i)[0]
            for i in places.split(ROWS)
        ]
        return {**found, "loss": torch.cat(losses).mean().item()}

    def chance(self) -> dict[str, float]:
        """Returns the recalls of an order by chance: k / M, and 1 − C(N − n, k) / C(N, k).

        The latter is the mean over the texts, with n pictures each.
        """
        N, M = len(self.number), len(self.texts)
        found = {f"recall@{k}": min(1.0, k / M) for k in KS}
        each = self.number.bincount(minlength=M).tolist()
        for k in KS:
            missed = sum(math.comb(N - n, min(k, N)) for n in each)
            found[f"recall@{k}_t2i"] = 1 - missed / M / math.comb(N, min(k, N))
        return found


def mean(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the mean of each figure."""
    return {name: sum(one[name] for one in figures) / len(figures) for name in figures[0]}


def record(
    process: Process | None, times: Tensor, pairs: Sequence[Pairs], scale: Tensor
) -> dict[str, Any]:
    """Returns what a test found, as JSON can hold it.

    "figures" are means over the times; the lists of "by_time" go along "t", where 0 is the clean
    picture.

    Args:
        process: The forward process, or None for clean pictures.
        times: Shape (K,), on the CPU.
        pairs: At each time.
        scale: e^λ.
    """
    each = [one.figures(scale) for one in pairs]
    return {
        "figures": mean(each),
        "chance": pairs[0].chance(),
        "n": len(pairs[0].number),
        "texts": len(pairs[0].texts),
        "scale": scale.item(),
        "T": process and process.T,
        "t": times.tolist(),
        "log_snr": process and accuracy.log_snr(process, times),
        "by_time": {name: [one[name] for one in each] for name in each[0]},
    }


def plot(record: Mapping[str, Any], path: Path) -> None:
    """Plots recall@k against t, or, if all pictures were clean, a bar for each.

    Args:
        record: What `record` returns.
        path: Where to.
    """
    ways = {"picture → text": ("", "-"), "text → picture": ("_t2i", "--")}
    clean = record["log_snr"] is None
    with accuracy.axes(path, "recall (chance: pale, or black)") as ax:
        for i, (way, (suffix, line)) in enumerate(ways.items()):
            names = [f"recall@{k}{suffix}" for k in KS]
            chance = [record["chance"][name] for name in names]
            if clean:
                places = [j + 0.4 * i - 0.2 for j in range(len(KS))]
                ax.bar(places, [record["figures"][name] for name in names], 0.36, label=way)
                ax.scatter(places, chance, marker="_", s=300, color="black", zorder=3)
                continue
            for j, (name, k) in enumerate(zip(names, KS)):
                style = {"color": f"C{j}", "linestyle": line}
                label = f"@{k}, {way}"
                ax.plot(record["t"], record["by_time"][name], marker=".", label=label, **style)
                ax.axhline(chance[j], alpha=0.3, **style)
        if clean:
            ax.set_xticks(range(len(KS)), [f"recall@{k}" for k in KS])
        else:
            accuracy.level_axis(ax, record)
