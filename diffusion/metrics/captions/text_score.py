"""How well images fit their captions, by a CLIP: the mean cosine, and retrieval."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from diffusion.common.pixels import scaled
from diffusion.metrics.base import Figure, MadeBy, SampleBatch
from diffusion.metrics.captions.base import EXCHANGED, CaptionMeasure, beside_real
from diffusion.metrics.captions.caption_retrieval import (
    caption_figures,
    distinct_texts,
    exchanged,
    mean_at,
    retrieval,
)
from diffusion.metrics.real_images import Data, random_rows, selected
from diffusion.metrics.reliability import at_chance

AT_ONCE = 250
SHOWN = 16  # captions in a record
FEW = 5  # captions, of which all may be found by chance


@runtime_checkable
class Scorer(Protocol):
    """Two towers into one space: an image and a text that fit have a large cosine.

    Attributes:
        shape: One image's shape.
        clean: Whether it knows clean images.
        parts: What it is made of and must not share with what it judges, by kind and digest.
    """

    shape: tuple[int, ...]
    clean: bool
    parts: frozenset[str]

    @property
    def fingerprint(self) -> str:
        """A hash of the weights."""
        ...

    def embed_image(self, images: Tensor) -> Tensor:
        """Returns unit vectors (B, D) of images (B, C, H, W) in [−1, 1], on their device."""
        ...

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Returns unit vectors (B, D)."""
        ...


class TextMeasure(CaptionMeasure):
    """What is measured of images that were asked for by captions.

    clip_score@n is the mean of cos(image, its caption). (Hessel et al. 2021, arXiv:2104.08718, have
    2.5 max(cos, 0), and GLIDE, Nichol et al. 2022, arXiv:2112.10741, the cosine times CLIP's logit
    scale; neither makes the numbers of two scorers comparable.) clip_r1@n and clip_r5@n are the
    shares of images whose own caption is among the 1 and 5 nearest of all distinct captions asked
    for. They depend on how many these are, m: a guess gets k/m.

    "_ceiling@n" is what real images get: in place of each sample stands a picture of the split
    asked that has its caption. There is none if a caption has no picture. "_floor@n" is what the
    samples get when the captions are exchanged, each for another.

    The figures are invalid, and say so, if samples are above the ceiling by more than the noise of
    n explains, or if the scorer shares a part with what draws: a text encoder, for example, whose
    mistakes then are both's.

    Args:
        scorer: The CLIP. It must be another than the one that guides, which can be pleased by what
            no eye sees.
    """

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self.scorer = scorer
        self.shared: str | None = None

    def check(self, data: Data, by: MadeBy) -> str | None:
        """Refuses a scorer that cannot judge, and warns of one that shares parts with what draws.

        Args:
            data: The data module.
            by: What draws.

        Raises:
            ValueError: If the data has no captions, or images that the scorer does not read, or if
                the scorer guides.
        """
        name, shape, reads = type(data).__name__, tuple(data.shape), tuple(self.scorer.shape)
        if data.ask is None:
            raise ValueError(f"metrics.text: {name} has no captions; expected data with captions")
        if reads != shape:
            raise ValueError(f"metrics.text.scorer: reads images {reads}; expected {shape}")
        if not self.scorer.clean:
            raise ValueError(
                "metrics.text.scorer: reads noisy images only; expected one of clean images"
            )
        if self.scorer.fingerprint in by.guides:
            raise ValueError(
                "metrics.text.scorer: it guides the sampler; expected another, which did not"
            )
        shared = ", ".join(sorted(set(self.scorer.parts) & set(by.parts)))
        self.shared = (
            f"metrics.text.scorer: it shares {shared} with what draws, so that its figures are "
            "invalid; expected one of its own parts, such as weights/judge_emoji"
            if shared
            else None
        )
        return self.shared

    def look(self, samples: SampleBatch) -> Tensor:
        """Returns the images' embeddings (B, D)."""
        return self._images(samples.images).to(self.device)

    def evaluate(self) -> dict[str, Figure]:
        """Returns the figures at n, nothing without captions."""
        self.entries, self.warnings = {"text": None}, []
        if not (n := int(self.seen)):
            return {}
        asked = self.asked()
        captions, own = distinct_texts(asked.texts)
        texts = self._texts(captions)
        cosines = asked.seen @ texts.T
        of_real = None if asked.real is None else asked.real @ texts.T
        ceiling = {} if of_real is None else caption_figures(of_real, own)
        out, invalid = beside_real(caption_figures(cosines, own), ceiling, self.shared)
        if len(captions) > 1:
            floor = mean_at(cosines, exchanged(len(captions))[own])
            out[f"clip_score_floor@{n}"] = out[f"clip_score@{n}"].floor(floor, of=EXCHANGED)
        known = None if of_real is None or len(captions) < FEW else (of_real, own)
        doubt = self._doubt(known or self._of_split(asked.split))
        self.warn(doubt, invalid)
        self.entries["text"] = {
            "scorer": self.scorer.fingerprint,
            "parts": sorted(self.scorer.parts),
            "split": None if asked.real is None else asked.split,
            "distinct": len(captions),
            "fingerprint": asked.fingerprint,
            "first": captions[:SHOWN],
        } | ({"warning": doubt} if doubt else {})
        return out

    def _doubt(self, real: tuple[Tensor, Tensor] | None) -> str | None:
        """Returns a warning if the scorer finds captions of real images no better than a guess.

        Args:
            real: Cosines of images and distinct captions, (n, m), each of which counts once, and
                the number of each image's, (n,); None if there are none.
        """
        if real is None:
            return None
        n, m = real[0].shape
        return at_chance("metrics.text.scorer", retrieval(*real, 1), min(n, m), 1 / m)

    def _of_split(self, split: str) -> tuple[Tensor, Tensor] | None:
        """Returns what `_doubt` reads, of pictures of a split with their own captions."""
        batches = list(selected(self.data, split))
        texts = [text for batch in batches for text in batch.get("text", ())]
        if not texts:
            return None
        rows = random_rows(torch.arange(len(texts)), AT_ONCE)
        captions, own = distinct_texts([texts[i] for i in rows.tolist()])
        images = torch.cat([batch["image"] for batch in batches])[rows]
        return self._images(images) @ self._texts(captions).T, own

    @torch.no_grad()
    def _images(self, images: Tensor) -> Tensor:
        """Returns embeddings (n, D), on the CPU, of uint8 images."""
        parts = (scaled(part.to(self.device)) for part in images.split(AT_ONCE))
        return torch.cat([self.scorer.embed_image(x).float().cpu() for x in parts])

    @torch.no_grad()
    def _texts(self, texts: list[str]) -> Tensor:
        """Returns embeddings (n, D), on the CPU."""
        parts = [texts[i : i + AT_ONCE] for i in range(0, len(texts), AT_ONCE)]
        return torch.cat([self.scorer.embed_text(part).float().cpu() for part in parts])
