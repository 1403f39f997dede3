"""How well images fit their captions, by a CLIP: the mean cosine, and retrieval."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from diffusion.metrics.generated import Generated, some
from diffusion.metrics.real_images import Data, pick
from diffusion.metrics.worth import at_chance

AT_ONCE = 250
TOP = (1, 5)
SHOWN = 16  # captions in a record
FEW = 5  # captions, of which all may be found by chance


class Scorer(Protocol):
    """Two towers into one space: an image and a text that fit have a large cosine."""

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


@dataclass(frozen=True)
class TextMeasure:
    """What is measured of images that were asked for by captions.

    clip_score@n is the mean of cos(image, its caption). (Hessel et al. 2021, arXiv:2104.08718, have
    2.5 max(cos, 0), and GLIDE, Nichol et al. 2022, arXiv:2112.10741, the cosine times CLIP's logit
    scale; neither makes the numbers of two scorers comparable.) clip_r1@n and clip_r5@n are the
    shares of images whose own caption is among the 1 and 5 nearest of all distinct captions asked
    for. They depend on how many these are, m: a guess gets k/m.

    "_ceiling@n" is what real images get: in place of each sample stands a picture of the split
    asked that has its caption. There is none if a caption has no picture. "_floor@n" is what the
    samples get when the captions are exchanged, each for another.

    Attributes:
        scorer: The CLIP. It must be another than the one that guides, which can be pleased by what
            no eye sees.
    """

    scorer: Scorer

    def check(self, data: Any, guides: Sequence[Any] = ()) -> str | None:
        """Refuses what cannot be measured; returns a warning where one is due.

        Args:
            data: The data module.
            guides: The sampler's guidance.

        Raises:
            ValueError: If the data has no captions, or images that the scorer does not read.
        """
        if getattr(data, "texts", None) is None:
            name = type(data).__name__
            raise ValueError(f"metrics.text: {name} has no captions, expected data with captions")
        shape = getattr(self.scorer, "shape", None)
        if shape is not None and tuple(shape) != tuple(data.shape):
            raise ValueError(
                f"metrics.text.scorer: reads images {tuple(shape)}, expected {tuple(data.shape)}"
            )
        if not getattr(self.scorer, "clean", True):
            raise ValueError(
                "metrics.text.scorer: reads noisy images only, expected one of clean images"
            )
        prints = [getattr(getattr(x, "scorer", None), "fingerprint", None) for x in guides]
        if self.scorer.fingerprint in prints:
            return "metrics.text.scorer: it guides the sampler too, so its score is no judgement"
        return None

    def __call__(
        self, made: Generated, data: Data, device: torch.device
    ) -> tuple[dict[str, float], dict[str, Any] | None]:
        """Returns the figures by name, and what they depend on; nothing without captions.

        Args:
            made: The generated images, with the texts that were asked for.
            data: The data module.
            device: Where the scorer computes.
        """
        if made.texts is None:
            return {}, None
        captions = list(dict.fromkeys(made.texts))
        number = {caption: i for i, caption in enumerate(captions)}
        own = torch.tensor([number[text] for text in made.texts])
        texts = self._texts(captions)
        cosines = self._images(made.images, device) @ texts.T
        out = figures(cosines, own)
        if len(captions) > 1:
            floor = mean_at(cosines, exchanged(len(captions))[own])
            out[f"clip_score_floor@{len(own)}"] = floor
        split = getattr(data, "ask", None) or "test"
        real = matching(made.texts, data, split)
        if real is not None:
            out |= figures(self._images(real, device) @ texts.T, own, "_ceiling")
        if real is not None and len(captions) >= FEW:
            warning = self._doubt(out[f"clip_r1_ceiling@{len(own)}"], len(own), len(captions))
        else:
            warning = self._doubt(*self._alone(data, split, device))
        return out, ({"warning": warning} if warning else {}) | {
            "scorer": self.scorer.fingerprint,
            "split": None if real is None else split,
            "distinct": len(captions),
            "fingerprint": hashlib.sha256("\n".join(made.texts).encode()).hexdigest()[:16],
            "first": captions[:SHOWN],
        }

    def _doubt(self, found: float | None, n: int, distinct: int) -> str | None:
        """Returns a warning if the scorer finds captions of real images no better than a guess.

        Args:
            found: Which share of n images have their own caption as the nearest; None if unknown.
            n: Number of images; each caption counts once.
            distinct: Number of captions.
        """
        return at_chance("metrics.text.scorer", found, min(n, distinct), 1 / distinct)

    def _alone(self, data: Data, split: str, device: torch.device) -> tuple[float | None, int, int]:
        """Returns what `_doubt` asks, of pictures of a split with their own captions."""
        batches = list(pick(data, split))
        texts = [text for batch in batches for text in batch.get("text", ())]
        if not texts:
            return None, 0, 1
        rows = some(torch.arange(len(texts)), AT_ONCE)
        captions = list(dict.fromkeys(texts[i] for i in rows.tolist()))
        own = torch.tensor([captions.index(texts[i]) for i in rows.tolist()])
        images = torch.cat([batch["image"] for batch in batches])[rows]
        found = retrieval(self._images(images, device) @ self._texts(captions).T, own, 1)
        return found, len(own), len(captions)

    @torch.no_grad()
    def _images(self, images: Tensor, device: torch.device) -> Tensor:
        """Returns embeddings (n, D), on the CPU, of uint8 images."""
        scaled = (part.to(device).float() / 127.5 - 1 for part in images.split(AT_ONCE))
        return torch.cat([self.scorer.embed_image(x).float().cpu() for x in scaled])

    @torch.no_grad()
    def _texts(self, texts: list[str]) -> Tensor:
        """Returns embeddings (n, D), on the CPU."""
        parts = [texts[i : i + AT_ONCE] for i in range(0, len(texts), AT_ONCE)]
        return torch.cat([self.scorer.embed_text(part).float().cpu() for part in parts])


def figures(cosines: Tensor, own: Tensor, end: str = "") -> dict[str, float]:
    """Returns score and retrieval of n images by name, such as clip_r5_ceiling@1000.

    Args:
        cosines: Of images and distinct captions (n, m).
        own: The number of each image's caption (n,).
        end: What follows the kind in a name.
    """
    n, m = cosines.shape
    out = {f"clip_score{end}@{n}": mean_at(cosines, own)}
    top = [k for k in TOP if k < m]  # of fewer captions, all are among the k nearest
    return out | {f"clip_r{k}{end}@{n}": retrieval(cosines, own, k) for k in top}


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
