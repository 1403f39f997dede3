"""From generated images to figures, against the real images of a data module."""

from pathlib import Path
from typing import Any

import torch

from diffusion.metrics.extractor import Extractor
from diffusion.metrics.figures import Generated, distances, label_accuracy, memorization
from diffusion.metrics.judge import Judge
from diffusion.metrics.reference import real_features
from diffusion.metrics.split import Data, collect, pick


class Measure:
    """All figures that were asked for; what is real is computed once and stored or kept.

    Args:
        cache: Folder for features of real images.
        judge: The judge of labels, or None for none.
        memorization: Whether to count near copies of training images.

    Attributes:
        reference: Which real images the last distances compared with; None before.
    """

    def __init__(self, cache: Path, judge: Judge | None, memorization: bool) -> None:
        self.cache, self.judge, self.memorization = cache, judge, memorization
        self.reference: dict[str, Any] | None = None

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
        n, figures = len(made.images), {}
        if extractor and made.features is not None and made.logits is not None:
            where = (extractor, self.cache, device)
            reference = real_features(data, "train", extractor.reference, *where)
            held_out = real_features(data, "test", "all", *where)
            figures |= distances(extractor, made.features, made.logits, reference, held_out)
            figures |= label_accuracy(made, data.num_classes)
            self.reference = {
                "rule": f"{extractor.reference} train images",
                "size": len(reference),
                "fingerprint": data.fingerprint("train"),
            }
        if self.judge and made.labels is not None:
            if self.judge.test_accuracy is None:
                self.judge.fit(data)
            figures[f"judge_accuracy@{n}"] = self.judge.accuracy(made.images, made.labels)
        if self.memorization:
            train = (batch["image"] for batch in pick(data, "train"))
            figures |= memorization(made, collect(data, "test")[0], train, device)
        return figures | {"seconds_per_image": made.seconds}
