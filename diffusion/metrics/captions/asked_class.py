"""Whether images are of the class of what their captions ask for, by a linear probe."""

from pathlib import Path

import torch
from torch import Tensor

from diffusion.metrics.base import Figure, SampleBatch
from diffusion.metrics.captions.base import EXCHANGED, CaptionMeasure, beside_real, over_others
from diffusion.metrics.features.base import Extractor
from diffusion.metrics.features.efficientnet import EfficientNet
from diffusion.metrics.real_images import Data, selected
from diffusion.metrics.reliability import tested


class AskedClass(CaptionMeasure):
    """The share of images whose class, by a linear probe, is that of their caption's pictures.

    The probe is fitted to frozen features of training pictures and knows no text
    (`metrics.features.probe`). asked_class@n is over the samples, its ceiling over real images of
    the captions, its floor the mean over all other captions, whose classes often agree. Nothing is
    measured where a caption has no picture of a class.

    Args:
        extractor: Whose logits are the probe's; by default `EfficientNet`.
    """

    def __init__(self, extractor: Extractor | None = None) -> None:
        super().__init__()
        self.extractor = EfficientNet() if extractor is None else extractor

    def prepare(self, data: Data, cache: Path, progress: bool = True) -> None:
        """Fits the probe, or finds it fitted."""
        super().prepare(data, cache, progress)
        self.extractor.prepare(data, cache, progress)

    def look(self, samples: SampleBatch) -> Tensor:
        """Returns the likeliest class of each image, (B, 1), −1 without classes."""
        logits = samples.features(self.extractor)[1]
        if not logits.shape[1]:
            return torch.full((len(logits), 1), -1, device=self.device)
        return logits.argmax(1, keepdim=True).to(self.device)

    def evaluate(self) -> dict[str, Figure]:
        """Returns the share at n, nothing without captions that have a class."""
        self.entries, self.warnings = {"asked_class": None}, []
        if not (n := int(self.seen)):
            return {}
        asked = self.asked()
        classes: dict[str, int] = {}
        for batch in selected(self.data, asked.split):
            classes |= zip(batch.get("text", ()), batch.get("label", torch.empty(0)).tolist())
        if n < 2 or not classes.keys() >= {*asked.texts}:
            return {}
        labels = torch.tensor([classes[text] for text in asked.texts])
        about = {**self.extractor.describe(), "captions": asked.fingerprint}
        if (accuracy := self.extractor.accuracy) is not None:
            counts = self.data.class_counts("test")
            about |= tested("the probe", accuracy, counts) if counts else {}
        self.entries = {"asked_class": about}

        def figure(seen: Tensor) -> dict[str, Figure]:
            value = (seen[:, 0] == labels).double().mean().item()
            words = ("Class asked for", "Share that a linear probe finds in the caption's class.")
            return {f"asked_class@{n}": Figure(value, n, *words, "high", True, ("asked_class",))}

        real = {} if asked.real is None else figure(asked.real)
        found, doubt = beside_real(figure(asked.seen), real)
        floor = over_others(asked.seen == labels)
        found[f"asked_class_floor@{n}"] = found[f"asked_class@{n}"].floor(floor, of=EXCHANGED)
        self.warn(about.get("warning"), doubt)
        return found
