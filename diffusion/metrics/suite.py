"""From generated images to figures, against the real images of a data module."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion.metrics.card import Card
from diffusion.metrics.features.base import Extractor
from diffusion.metrics.features.real import real_features
from diffusion.metrics.fidelity import fidelity, sets
from diffusion.metrics.generated import Generated, distances, label_accuracy, memorization
from diffusion.metrics.judge import Judge
from diffusion.metrics.real_images import Data, collect, shown
from diffusion.metrics.text_score import TextMeasure
from diffusion.metrics.worth import described, too_few


class Measure:
    """All figures that were asked for; what is real is computed once and stored or kept.

    Args:
        cache: Folder for features of real images.
        judge: The judge of labels, or None for none.
        memorization: Whether to count near copies of training images.
        card: Whose figures are taken too, or None.
        text: What is measured of captions, or None.

    Attributes:
        reference: Which real images the last distances compared with; None before.
        sets: For each extractor of the card its images and its fingerprint.
        warnings: Why some of the last figures are worth less than they seem.
        asked: The scorer and the captions of the last figures of captions; None without.
    """

    def __init__(
        self,
        cache: Path,
        judge: Judge | None,
        memorization: bool,
        card: Card | None = None,
        text: TextMeasure | None = None,
    ) -> None:
        self.cache, self.judge, self.memorization = cache, judge, memorization
        self.card, self.text = card, text
        self.asked: dict[str, Any] | None = None
        self.reference: dict[str, Any] | None = None
        self.sets: list[dict[str, Any]] = []
        self.warnings: list[str] = []

    def __call__(
        self, made: Generated, data: Data, extractor: Extractor | None, device: torch.device
    ) -> dict[str, float]:
        """Returns the figures by name.

        Args:
            made: The generated images.
            data: The data module.
            extractor: A prepared extractor, or None for only what needs no features.
            device: Where features and distances of real images are computed.
        """
        n, figures, found = len(made.images), {}, []
        if extractor and made.features is not None and made.logits is not None:
            reference, held_out = self._real(data, extractor, device)
            figures |= distances(extractor, made.features, made.logits, reference, held_out)
            figures |= label_accuracy(made, data.num_classes)
            numbers = {"metrics.n": n, "reference": len(reference), "floor": len(held_out)}
            size = reference.shape[1]
            found += [described(extractor, data).get("warning")]
            found += [too_few(what, number, size) for what, number in numbers.items()]
            self.reference = {
                "rule": f"{extractor.reference} train images",
                "size": len(reference),
                "fingerprint": data.fingerprint("train"),
            }
        if self.card:
            figures |= self._fidelity(made, data, extractor, device)
            found += [about.get("warning") for about in self.sets]
        if self.text:
            scores, self.asked = self.text(made, data, device)
            figures |= scores
            found += [(self.asked or {}).get("warning")]
        if self.judge and made.labels is not None:
            if self.judge.test_accuracy is None:
                self.judge.fit(data)
            figures[f"judge_accuracy@{n}"] = self.judge.accuracy(made.images, made.labels)
            found += [self.judge.describe().get("warning")]
        if self.memorization:
            figures |= memorization(made, collect(data, "test")[0], shown(data), device)
        self.warnings = list(dict.fromkeys(filter(None, found)))
        return figures | made.evaluations | {"seconds_per_image": made.seconds}

    def _real(self, data: Data, extractor: Extractor, device: torch.device) -> tuple[Tensor, ...]:
        """Returns features of the reference, and of held-out images."""
        where = (extractor, self.cache, device)
        reference = real_features(data, "train", extractor.reference, *where)
        return reference, real_features(data, "test", "all", *where)

    def _fidelity(
        self, made: Generated, data: Data, extractor: Extractor | None, device: torch.device
    ) -> dict[str, float]:
        """Precision, recall, density and coverage in the features of each extractor."""
        out, self.sets = {}, []
        card = self.card or Card()
        for each in card.all(extractor):
            features = made.features if each is extractor else None
            if features is None:
                parts = made.images.split(250)
                features = torch.cat([each(part.to(device))[0].cpu() for part in parts])
            reference, held_out = (x.to(device) for x in self._real(data, each, device))
            about = described(each, data)
            if len(reference) > max(card.k, card.k_coverage):
                out |= fidelity(each, features, reference, held_out, card.k, card.k_coverage)
            else:
                about["warning"] = (
                    f"reference: {len(reference)} images, expected more than k = "
                    f"{max(card.k, card.k_coverage)} for precision, recall, density and coverage"
                )
            counts = sets(len(features), len(reference))
            self.sets.append({**about, "rule": f"{each.reference} train images", **counts})
        return out
