# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
"""What every measure of captioned images gathers, and what it may claim."""

import hashlib
import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from diffusion.metrics.base import Figure, Measure, SampleBatch, in_sample_order, with_real
from diffusion.metrics.captions.caption_retrieval import matching

END = "\0"  # of a caption among the bytes of all
REAL = "real images of the captions"
EXCHANGED = "samples with the captions exchanged"
SIGMAS = 2


@dataclass(frozen=True)
class Captioned:
    """What was asked for, and what a measure sees of what came.

    Attributes:
        texts: The caption of each sample, n of them.
        seen: `CaptionMeasure.look` of the samples, (n, D).
        real: The same of a real image of each caption, (n, D); None if a caption has none.
        split: Whose real images these are.
    """

    texts: list[str]
    seen: Tensor
    real: Tensor | None
    split: str

    @property
    def fingerprint(self) -> str:
        """16 digits that change with the captions."""
        return hashlib.sha256("\n".join(self.texts).encode()).hexdigest()[:16]


class CaptionMeasure(Measure):
    """A measure of images that were asked for by captions; nothing without captions.

    A figure's ceiling is what real images of the same captions get, its floor what the samples get
    when captions are exchanged.
    """

    higher_is_better = True
    index: list[Tensor]
    seen_of: list[Tensor]
    texts: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("index", "seen_of", "texts"):
            self.add_state(name, [], "cat")

    @abstractmethod
    def look(self, samples: SampleBatch) -> Tensor:
        """Returns what the figures need to know of each image, (B, D)."""

    def update(self, samples: SampleBatch) -> None:
        """Looks at the images, and keeps the captions as bytes."""
        if samples.texts is None:
            return
        self.index.append(self.count(samples))
        self.seen_of.append(self.look(samples))
        lines = "".join(f"{text}{END}" for text in samples.texts).encode()
        self.texts.append(torch.tensor(list(lines), dtype=torch.uint8, device=self.device))

    def asked(self) -> Captioned:
        """Returns what was asked for and seen, in the order of the samples, on the CPU."""
        lines = bytes(dim_zero_cat(self.texts).tolist()).decode().split(END)
        texts = [lines[i] for i in dim_zero_cat(self.index).argsort().tolist()]
        (seen,), split = in_sample_order(self.index, self.seen_of), self.data.ask or "test"
        images = matching(texts, self.data, split)
        real = None if images is None else self.look(SampleBatch(images.to(self.device))).cpu()
        return Captioned(texts, seen.cpu(), real, split)


def beside_real(
    figures: Mapping[str, Figure], real: Mapping[str, Figure], doubt: str | None = None
) -> tuple[dict[str, Figure], str | None]:
    """Returns figures with their ceilings, and why they are invalid, or None.

    They are if what measures is part of what is measured, or if a share is above its ceiling by
    more than the noise of n explains (`above`): then what measures is pleased by something else
    than what captions say, and all its figures are marked.

    Args:
        figures: Of samples, by name.
        real: Those of real images of the same captions, by the same names; of some of them.
        doubt: Why they are invalid in any case.
    """
    for name, figure in figures.items():
        if doubt is None and figure.share and name in real:
            doubt = above(name, figure.value, real[name].value, figure.n or 1)
    if doubt is not None:
        figures = {name: replace(figure, invalid=doubt) for name, figure in figures.items()}
    return with_real(figures, real, "ceiling", REAL), doubt


def above(name: str, share: float, ceiling: float, n: int) -> str | None:
    """Returns what to say if p is above q by more than two standard errors, None if it is not.

    Both are shares of n, and the standard error of p − q is √(2 m (1 − m) / n) with m = (p + q) / 2
    (the binomials' pooled variance). Samples and real images share their captions, so that the true
    error is smaller, and the rule cautious.

    Args:
        name: Whose.
        share: p, of samples.
        ceiling: q, of real images.
        n: How many of each.
    """
    mean = (share + ceiling) / 2
    if share - ceiling <= SIGMAS * math.sqrt(2 * mean * (1 - mean) / n):
        return None
    return (
        f"{name}: {share:.1%} of samples, {ceiling:.1%} of real images of the same captions; more "
        "than two standard errors above what real images get is invalid"
    )


def over_others(hits: Tensor) -> float:
    """Returns the mean of an (n, n) table without its diagonal: all exchanges of n captions.

    Args:
        hits: Row i, column j: what image i gets for caption j.
    """
    n = len(hits)
    hits = hits.double()
    return ((hits.sum() - hits.diagonal().sum()) / (n * (n - 1))).item()
