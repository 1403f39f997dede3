"""Whether samples show the persons they were asked to be, in the opinion of a judge."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.common.pixels import scaled
from diffusion.metrics.base import Figure, MadeBy, Measure, SampleBatch, in_sample_order, with_real
from diffusion.metrics.real_images import Data

AT_ONCE = 250
REAL = "real images in place of samples, beside other ones of the same persons"
OTHERS = "samples beside pictures of other persons"


@runtime_checkable
class IdentityJudge(Protocol):
    """Embeds pictures so that those of one person are near.

    `PersonEmbedding` is one, and for photographs `PublicIdentity`.
    """

    def known_by(self) -> tuple[tuple[int, ...], str]:
        """Returns the shape (C, H, W) of its pictures, () for any, and a hash of its weights."""
        ...

    def prepare(self, pictures: Iterable[Tensor]) -> None:
        """Sees what training shows, in batches in [−1, 1], before it judges; most need not."""
        ...

    def encode(self, x: Tensor) -> Tensor:
        """Returns embeddings (B, D) of pictures in [−1, 1]."""
        ...


class IdentityScore(Measure):
    """How near a sample is to the picture of whom it was asked to be.

    identity_cosine@n is the mean cosine of a judge's embeddings of both, its floor that of samples
    and pictures of other persons. identity_rank1@n is the share of samples to which no picture of
    another person is as near as the own one; it falls with n. "_ceiling@n" is what real images get:
    n of the split that is asked for, evenly spread, each beside another picture of its person.

    Args:
        judge: Tells persons apart, and is not what conditions the samples.
    """

    higher_is_better = True
    index: list[Tensor]
    drawn: list[Tensor]
    given: list[Tensor]
    persons: list[Tensor]

    def __init__(self, judge: IdentityJudge) -> None:
        super().__init__()
        self.judge = judge
        self.shape, self.fingerprint = judge.known_by()
        for name in ("index", "drawn", "given", "persons"):
            self.add_state(name, [], "cat")

    def check(self, data: Data, by: MadeBy) -> None:
        """Refuses a judge that reads other pictures, or that conditions what it judges.

        Args:
            data: The data module.
            by: What draws.

        Raises:
            ValueError: If it does.
        """
        key = "metrics.measures.judge"
        if self.shape and tuple(data.shape) != tuple(self.shape):
            raise ValueError(f"{key}: reads pictures {self.shape}; expected {tuple(data.shape)}")
        if self.fingerprint in by.encoders:
            raise ValueError(
                f"{key}: it conditions what it would judge; expected another encoder, trained on "
                "other persons"
            )

    def prepare(self, data: Data, cache: Path, progress: bool = True) -> None:
        """Embeds the real images."""
        super().prepare(data, cache, progress)
        self.judge.prepare(x.to(self.device) for x in data.shown())
        parts = [
            (self._embed(b["image"]), self._embed(b["identity"]), b["person"])
            for b in data.batches(data.asked_split, AT_ONCE)
            if "identity" in b
        ]
        self._real = [torch.cat(rows) for rows in zip(*parts)]

    @torch.no_grad()
    def _embed(self, pictures: Tensor) -> Tensor:
        found = self.judge.encode(pictures.to(self.device))
        return F.normalize(found.float(), dim=1).cpu()

    def update(self, samples: SampleBatch) -> None:
        """Embeds samples and the pictures given; nothing without these."""
        if samples.identities is None:
            return
        index = self.count(samples)
        persons = -1 - index if samples.persons is None else samples.persons.to(self.device)
        found = index, self._embed(scaled(samples.images)), self._embed(samples.identities), persons
        for state, value in zip((self.index, self.drawn, self.given, self.persons), found):
            state.append(value.to(self.device))

    def evaluate(self) -> dict[str, Figure]:
        """Returns the figures, nothing of fewer than two samples."""
        self.entries = {"identity": None}
        if (n := int(self.seen)) < 2:
            return {}
        rows = in_sample_order(self.index, self.drawn, self.given, self.persons)
        found, floor = compared(*(x.cpu() for x in rows))
        self.entries = {"identity": {"judge": self.fingerprint}}
        words = {
            "cosine": ("Identity", "Mean cosine of sample and picture given, by a judge."),
            "rank1": ("Right person nearest", "Share nearer to the picture given than to others'."),
        }
        figures = {
            f"identity_{key}@{n}": Figure(
                value, n, *words[key], "high", key == "rank1", ("identity",), leading=True
            )
            for key, value in found.items()
        }
        cosine = figures[f"identity_cosine@{n}"]
        if self._real:
            some = torch.linspace(0, len(self._real[0]) - 1, min(n, len(self._real[0]))).long()
            best, _ = compared(*(x[some] for x in self._real))
            real = {k: figures[k].floor(v) for k, v in zip(figures, best.values())}
            figures = with_real(figures, real, "ceiling", REAL)
        return {**figures, f"identity_cosine_floor@{n}": cosine.floor(floor, of=OTHERS)}


def compared(drawn: Tensor, given: Tensor, persons: Tensor) -> tuple[dict[str, float], float]:
    """Returns "cosine" and "rank1" of each drawn with what it was given; the mean with others'.

    Args:
        drawn: Unit vectors (n, D).
        given: Unit vectors (n, D).
        persons: Whose each is, (n,).
    """
    cos, other = drawn @ given.T, persons[:, None] != persons
    own = cos.diagonal()
    best = cos.masked_fill(~other, -torch.inf).amax(1)
    floor = cos[other].mean().item() if other.any() else torch.nan
    return {"cosine": own.mean().item(), "rank1": (own > best).double().mean().item()}, floor
